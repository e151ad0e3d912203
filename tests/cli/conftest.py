"""A tiny model and a run that the commands made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_run
import tiny_model
from command import heedful


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture(scope="session")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-run")
    config = small_run.write_config(folder / "small.toml", tiny)
    done = heedful("run", config, "--dir", folder / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["align"]["steps"] == 6
    return folder / "run"
