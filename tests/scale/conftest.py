"""A tiny model, and a team of two that all tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gang
import pytest
import tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("scale") / "tiny")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gang.Gang]:
    with gang.gang(tmp_path_factory.mktemp("gang")) as made:
        yield made
