"""What a page gets of metrics.jsonl is what stands in it, while it grows, breaks off, and is written anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_folder

from heedful.store import read_metrics, write_text
from heedful.web.runs.series import MOST_POINTS, Column, reading, step_seconds, thinned, tokens_per_second


def curve(run: Path, name: str, stage: str = "ppo") -> dict[str, Any]:
    with reading(run) as series:
        return thinned(series.stage(stage).columns.get(name, Column()))


def in_file(run: Path, name: str, stage: str = "ppo") -> tuple[list[int], list[float]]:
    rows = [row for row in read_metrics(run) if row["stage"] == stage and name in row]
    return [row["step"] + 1 for row in rows], [row[name] for row in rows]


@pytest.mark.parametrize("name", ["reward", "heldout_reward"])
def test_a_short_curve_is_the_file(tmp_path: Path, name: str) -> None:
    run = run_folder.make(tmp_path / "run", 300)
    found = curve(run, name)
    assert (found["steps"], found["values"]) == in_file(run, name)


def test_a_long_curve_is_thinned_to_points_of_the_file_and_keeps_its_extremes(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 0)
    rows = [run_folder.row(step) for step in range(20_000)]
    rows[7_777]["reward"], rows[12_345]["reward"] = 1_000.0, -1_000.0
    run_folder.append(run, rows)
    found = curve(run, "reward")
    assert found["num"] == 20_000
    assert len(found["values"]) == len(found["steps"]) == MOST_POINTS
    assert found["steps"] == sorted(found["steps"])
    assert {1_000.0, -1_000.0} <= set(found["values"])
    assert all(rows[step - 1]["reward"] == value for step, value in zip(found["steps"], found["values"], strict=True))
    assert (found["steps"][0], found["steps"][-1]) == (1, 20_000)


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 5)
    with reading(run) as series:
        first = series.version
    with reading(run) as series:
        assert series.version == first
    run_folder.append(run, [run_folder.row(5)])
    with reading(run) as series:
        assert series.version != first
        assert list(series.stage("ppo").steps) == list(range(6))
    # Behind the back of whoever follows: what was read once is not read again.
    text = (run / "metrics.jsonl").read_text()
    with (run / "metrics.jsonl").open("r+") as file:
        file.write(text.replace('"step": 0', '"step": 9'))
    run_folder.append(run, [run_folder.row(6)])
    with reading(run) as series:
        assert list(series.stage("ppo").steps) == list(range(7))


def test_a_line_that_was_cut_waits_for_its_rest(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 3)
    line = json.dumps(run_folder.row(3))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line[:40])
    assert curve(run, "reward")["steps"] == [1, 2, 3]
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line[40:] + "\n")
    assert curve(run, "reward")["steps"] == [1, 2, 3, 4]


def test_a_run_that_is_resumed_is_read_anew(tmp_path: Path) -> None:
    """Resuming drops the steps after the checkpoint: the file is another one, perhaps a longer one."""
    run = run_folder.make(tmp_path / "run", 10)
    curve(run, "reward")
    rows = read_metrics(run)[:6] + [run_folder.row(step, reward=5.0) for step in range(6, 20)]
    write_text(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert curve(run, "reward")["values"] == [row["reward"] for row in rows]


def test_what_is_no_number_is_counted_and_not_drawn(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 3)
    run_folder.append(run, [run_folder.row(3, reward=float("nan")), run_folder.row(4, reward=None), run_folder.row(5)])
    found = curve(run, "reward")
    assert found["steps"] == [1, 2, 3, 6]
    assert found["num_broken"] == 2
    assert len(curve(run, "entropy")["steps"]) == 6


def test_a_broken_line_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 2)
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{broken\n")
    run_folder.append(run, [run_folder.row(2)])
    with reading(run) as series:
        assert series.broken == 3
        assert list(series.stage("ppo").steps) == [0, 1, 2]


def test_two_stages_in_one_folder_have_their_own_curves(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 4)
    run_folder.append(run, [run_folder.row(step, "dpo", loss=0.5) for step in range(2)])
    assert curve(run, "reward", "ppo")["num"] == 4
    assert curve(run, "loss", "dpo")["values"] == [0.5, 0.5]
    assert curve(run, "loss", "ppo")["num"] == 0


def test_no_file_is_no_curve(tmp_path: Path) -> None:
    with reading(tmp_path) as series:
        assert series.stages == {}


def test_speed_is_tokens_over_the_time_between_rows(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 0)
    rows = [run_folder.row(step, length=10.0 * (step + 1), time=100.0 + step * step) for step in range(4)]
    run_folder.append(run, rows)
    with reading(run) as series:
        stage = series.stage("ppo")
        speed = tokens_per_second(stage, episodes=8)
        # 8 rollouts of 20, 30 and 40 tokens in 1, 3 and 5 seconds.
        assert list(speed.steps) == [1, 2, 3]
        assert np.allclose(speed.values, [160.0, 80.0, 64.0])
        assert step_seconds(stage) == pytest.approx(3.0)


def test_a_step_that_stands_twice_is_drawn_once(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 5)
    run_folder.append(run, [run_folder.row(step, reward=9.0) for step in range(3)])
    found = curve(run, "reward")
    assert found["steps"] == [1, 2, 3, 4, 5]
    assert found["values"][:3] == [9.0, 9.0, 9.0]
    with reading(run) as series:
        assert series.stage("ppo").num_again == 1


def test_files_that_take_turns_are_told_apart(tmp_path: Path) -> None:
    """Replaced twice between two looks, the file may have its old inode and be longer."""
    run = run_folder.make(tmp_path / "run", 4)
    curve(run, "reward")
    with reading(run) as series:
        first = series.version
    text = "".join(json.dumps(run_folder.row(step, reward=7.0, time=1.5 * step)) + "\n" for step in range(9))
    with (run / "metrics.jsonl").open("r+") as file:  # the same inode
        file.write(text)
    assert curve(run, "reward")["values"] == [7.0] * 9
    with reading(run) as series:
        assert series.version != first


@pytest.mark.parametrize(
    "odd",
    ['{"step": 9223372036854775808, "stage": "ppo"}', '{"step": true, "stage": "ppo"}', '{"step": -1, "stage": "ppo"}', "[]"],
)
def test_a_row_without_a_step_is_named(tmp_path: Path, odd: str) -> None:
    run = run_folder.make(tmp_path / "run", 1)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(odd + "\n")
    run_folder.append(run, [run_folder.row(1)])
    with reading(run) as series:
        assert series.broken == 2
        assert list(series.stage("ppo").steps) == [0, 1]


def test_values_that_are_no_numbers_do_not_hinder_the_others(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 1)
    line = json.dumps(run_folder.row(1)).replace('"entropy": ', '"entropy": [1, 2], "huge": 1' + "0" * 400 + ', "was": ')
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line.replace('"time": 1000002.0', '"time": [1]') + "\n")
    run_folder.append(run, [run_folder.row(2)])
    assert curve(run, "reward")["steps"] == [1, 2, 3]
    assert curve(run, "entropy")["num_broken"] == 1
    assert curve(run, "huge")["num_broken"] == 1
    with reading(run) as series:
        assert len(series.stage("ppo").times) == 3


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with reading(tmp_path) as series:
        assert "cannot be read" in series.problem
