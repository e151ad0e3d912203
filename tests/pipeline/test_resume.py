"""Interrupted anywhere, by a kill or by Ctrl-C, a run ends with the very numbers of one that was left in peace."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from small_run import start

# Stage and the count of finished pieces at which the process ends itself: before the first piece, in the middle of the work,
# between a checkpoint and the next one, and after the last piece but before the stage is marked as done.
POINTS = [
    ("sample", 0),
    ("sample", 2),
    ("label", 0),
    ("consensus", 0),
    ("reward", 3),
    ("reward", 11),
    ("ppo", 1),
    ("ppo", 5),
    ("ppo", 6),
    ("evaluate", 1),
    ("report", 0),
]


def numbers(run: Path) -> dict[str, Any]:
    """All that a run found, without clocks."""
    summary = json.loads((run / "summary.json").read_text())
    for name in ("created_at", "seconds", "peak_memory_mb", "predicted_memory_mb"):
        del summary[name]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["time"]
    return {"summary": summary, "metrics": sorted(rows, key=lambda row: (row["stage"], row["step"]))}


def assert_same(run: Path, whole: Path) -> None:
    assert numbers(run) == numbers(whole)
    for name in ("ppo/policy/adapter_model.safetensors", "ppo/policy/value_head.safetensors", "reward/model/head.safetensors"):
        ours, theirs = load_file(run / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(bool((ours[key] == theirs[key]).all()) for key in ours), name
    for name in ("sample/completions.jsonl", "evaluate/completions-after.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(("stage", "done"), POINTS)
def test_killed_run_goes_on_to_the_same_numbers(config: Path, whole: Path, tmp_path: Path, stage: str, done: int) -> None:
    run = tmp_path / "run"
    killed = start(config, run, stage, str(done), str(int(signal.SIGKILL)))
    assert killed.returncode == -signal.SIGKILL
    resumed = start(config, run)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(run, whole)


CTRL_C = [
    *(("sample", "2"), ("label", "0"), ("label", "written"), ("consensus", "0"), ("consensus", "written"), ("reward", "3")),
    *(("ppo", "3"), ("evaluate", "1"), ("report", "0"), ("report", "written")),
]


@pytest.mark.parametrize(("stage", "done"), CTRL_C)
def test_ctrl_c_leaves_promptly_and_the_run_goes_on(config: Path, whole: Path, tmp_path: Path, stage: str, done: str) -> None:
    run = tmp_path / "run"
    clock = time.monotonic()
    stopped = start(config, run, stage, done, str(int(signal.SIGINT)))
    assert "KeyboardInterrupt" in stopped.stderr
    assert time.monotonic() - clock < 120  # with the run up to there, on a busy machine
    stages = json.loads((run / "manifest.json").read_text())["stages"]
    assert stages.get(stage, {}).get("state") != "done", "what was interrupted does not count as done"
    if done == "written":
        assert stages[stage]["state"] == "running"
    resumed = start(config, run)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(run, whole)


def test_finished_run_does_nothing_again(config: Path, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}
    assert start(config, whole).returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}
