"""`heedful run` with two workers that the command starts itself, and settings that no machine can follow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_run
from command import assert_one_paragraph, heedful

from heedful.store import read_metrics

SMALLER = ["reward.epochs=1", "ppo.max_steps=2", "ppo.eval_every=2", "prompts.num_train=12", "prompts.num_heldout=4"]


def test_a_whole_run_of_two_workers(tiny: Path, tmp_path: Path) -> None:
    """Every stage: the files are those of one run, each step is told once, and nothing but the result is on stdout."""
    config = small_run.write_config(tmp_path / "small.toml", tiny)
    settings = [part for text in ("scale.num_trainers=2", *SMALLER) for part in ("--set", text)]
    done = heedful("run", config, "--dir", tmp_path / "run", "--json", *settings)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["align"]["steps"] == 2
    steps = [(row["stage"], row["step"]) for row in read_metrics(tmp_path / "run")]
    assert len(steps) == len(set(steps))
    assert steps[-2:] == [("ppo", 0), ("ppo", 1)]
    assert "num_trainers = 2" in (tmp_path / "run" / "heedful.toml").read_text()
    assert [file.name for file in (tmp_path / "run" / "workers").iterdir()] == ["worker-1.log"]
    states = json.loads((tmp_path / "run" / "manifest.json").read_text())["stages"]
    assert {name: entry["state"] for name, entry in states.items()} == dict.fromkeys(
        ["sample", "label", "consensus", "reward", "ppo", "evaluate", "report"], "done"
    )
    again = heedful("run", config, "--dir", tmp_path / "run", "--json", *settings[2:])
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["align"] == summary["align"]
    assert again.stderr.count("already done") == len(states), "another number of workers does nothing again"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["scale.num_trainers=900"], ("scale.num_trainers = 900", "ask for 900 workers", "are missing")),
        (["scale.num_trainers=1", "scale.num_rollout_workers=900"], ("num_rollout_workers = 900", "901 workers")),
        (["scale.runner=local", "scale.num_trainers=2"], ("runner = 'local' is one process",)),
        (["scale.address=auto"], ("address = 'auto' is that of a Ray cluster",)),
    ],
)
def test_what_asks_for_more_than_there_is_is_refused_before_anything_loads(
    tiny: Path, tmp_path: Path, settings: list[str], said: tuple[str, ...]
) -> None:
    config = small_run.write_config(tmp_path / "small.toml", tiny)
    failed = heedful("run", config, "--dir", tmp_path / "run", *(part for text in settings for part in ("--set", text)))
    assert_one_paragraph(failed, *said)
    assert not (tmp_path / "run" / "manifest.json").exists()
