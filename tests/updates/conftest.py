"""A run of the tiny model against a reward that counts letters: the share of those of the alphabet's first half."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_run
import tiny_model

from heedful.config import Config, load
from heedful.pipeline import Pipeline
from heedful.store import Run

REWARD = """
def score(prompts, completions):
    return [sum(letter in "abcdefghijklm" for letter in text) / max(1, len(text)) for text in completions]
"""
SETTINGS = (
    "prompts.num_train=24",
    "prompts.num_heldout=40",
    "ppo.max_steps=1",
    "ppo.episodes=4",
    "ppo.num_minibatches=1",
    "ppo.eval_every=100",
    "monitor.on=false",
    "sample.num_completions=4",
    "evaluate.num_completions=2",
    "kto.epochs=4",
    "kto.learning_rate=0.02",
    "kto.batch_completions=24",
    "update.margin=0.3",
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("config")
    (folder / "letters.py").write_text(REWARD)
    terms = f'[[reward.terms]]\nsource = "{folder / "letters.py"}:score"\n'
    return load(small_run.write_config(folder / "small.toml", tiny, more=terms), SETTINGS)


@pytest.fixture(scope="session")
def aligned(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the policy answers to the training prompts lies in sample/, to be voted on."""
    folder = tmp_path_factory.mktemp("aligned") / "run"
    with Run(folder) as run:
        pipeline = Pipeline(config, run, lambda *_: None, "heedful run")
        pipeline.align_alone()
        pipeline.stage("sample", pipeline.sample, {})
    return folder
