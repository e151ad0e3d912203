"""A tiny model and one uninterrupted run that others are held against."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_run
import tiny_model
from small_run import start


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.write_config(tmp_path_factory.mktemp("config") / "small.toml", tiny)


@pytest.fixture(scope="session")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = start(config, folder)
    assert done.returncode == 0, done.stderr
    return folder
