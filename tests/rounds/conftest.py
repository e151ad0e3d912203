"""A tiny model and a run of two rounds with simulated labelers."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_run
import tiny_model

from heedful.config import Config, load
from heedful.flows.rounds import run_rounds

TINY = (
    "prompts.num_train=24",
    "prompts.num_heldout=6",
    "reward.epochs=1",
    "ppo.max_steps=2",
    "ppo.episodes=4",
    "ppo.num_minibatches=1",
    "evaluate.num_completions=1",
    "evaluate.max_new_tokens=8",
    "ppo.max_new_tokens=8",
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def config_file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.write_config(tmp_path_factory.mktemp("config") / "small.toml", tiny)


@pytest.fixture(scope="session")
def config(config_file: Path) -> Config:
    return load(config_file, TINY)


@pytest.fixture(scope="session")
def two_rounds(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each round judges twelve of the 24 training prompts."""
    folder = tmp_path_factory.mktemp("rounds") / "two"
    share = config.round.model_copy(update={"num_prompts": 12})
    run_rounds(config.model_copy(update={"rounds": 2, "round": share}), folder, lambda *_: None, "heedful run")
    return folder
