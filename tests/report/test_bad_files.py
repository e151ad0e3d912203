"""Files as crashes and people leave them: each is told of on the page, or is an error that says what to do."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from report_run import PPO_ROWS, interval, quantity, row, summary, write_lines, write_run

from heedful.errors import StoreError
from heedful.report.build import build
from heedful.report.contents import gather
from heedful.store import write_json


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path)


def notices(run: Path) -> str:
    """Those of gather, which are on both pages."""
    found = gather(run).notices
    html, markdown = build(run).read_text(encoding="utf-8"), (run / "report.md").read_text(encoding="utf-8")
    assert all(notice.replace("'", "&#39;") in html for notice in found)
    assert ("About the files" in html) is ("About the files" in markdown) is bool(found)
    return " ".join(found)


def test_sound_files_are_not_spoken_of(run: Path) -> None:
    for side in ("before", "after"):
        write_lines(run / "evaluate" / f"{side}.jsonl", [row("p1", 1, 0.5, "fine")])
    assert notices(run) == ""


@pytest.mark.parametrize("cut", [1, 40])
@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "hacking.jsonl"])
def test_a_line_cut_by_a_crash_is_left_out_and_told_of(run: Path, name: str, cut: int) -> None:
    whole = {
        "metrics.jsonl": PPO_ROWS,
        "samples.jsonl": [{"steps": n, "stage": "ppo", "prompt": "Why is the sky blue?", "text": "Because."} for n in (1, 2)],
        "hacking.jsonl": [
            {"steps": n, "stage": "ppo", "signs": [{"name": "kl", "level": "warn", "said": "far"}]} for n in (1, 2)
        ],
    }[name]
    write_lines(run / name, whole)
    assert "incomplete" not in notices(run)
    text = (run / name).read_text(encoding="utf-8")
    (run / name).write_text(text[: -1 - cut], encoding="utf-8")
    assert f"The last line of {name} is incomplete" in notices(run)
    contents = gather(run)
    kept = {"metrics.jsonl": contents.metrics, "samples.jsonl": contents.samples, "hacking.jsonl": contents.signs}[name]
    assert kept == whole[:-1]


def test_a_broken_line_in_the_middle_is_an_error(run: Path) -> None:
    lines = [json.dumps(line) for line in PPO_ROWS]
    (run / "metrics.jsonl").write_text(f"{lines[0]}\n{lines[1][:20]}\n{lines[1]}\n")
    with pytest.raises(StoreError, match=r"metrics\.jsonl:2: not a JSON object"):
        build(run)
    (run / "metrics.jsonl").write_bytes(b'{"step": 0}\xff\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl: no UTF-8"):
        build(run)


def test_what_is_no_number_is_named_and_not_plotted(run: Path) -> None:
    bad = [line | {"reward": math.nan, "entropy": math.inf if line["step"] else 1.0} for line in PPO_ROWS]
    write_lines(run / "metrics.jsonl", bad)
    said = notices(run)
    assert "reward (2 steps) and entropy (1 step)" in said
    assert "reward that is no number: 1 before" in said  # write_run's own


def test_an_empty_answer_is_shown_and_counted(run: Path) -> None:
    write_lines(run / "evaluate" / "before.jsonl", [row("p1", 1, 0.5, "fine"), row("p2", 1, 0.4, "good")])
    write_lines(run / "evaluate" / "after.jsonl", [row("p1", 1, 0.1, ""), row("p2", 1, 0.6, " \n")])
    assert "Some held-out answers are empty: 0 of 2 before and 2 of 2 after." in notices(run)
    assert (run / "report.html").read_text().count("(nothing)") == 2  # of p1: among the random ones and the losses
    assert (run / "report.md").read_text().count("(nothing)") == 2


def test_one_prompt_gives_no_interval_and_that_is_said(run: Path) -> None:
    alone = quantity("Reward", 0.0, 0.5, "one prompt only: no interval") | {"num_prompts": 1, "difference": interval(0.5)}
    write_json(run / "summary.json", summary() | {"compare": {"reward": alone}, "by_tag": {"helpful": {"reward": alone}}})
    build(run)
    for name in ("report.html", "report.md"):
        text = (run / name).read_text(encoding="utf-8")
        assert "Not shown: one prompt gives no interval" in text
        assert "There was one held-out prompt only, so there are no intervals" in text
        assert "[None" not in text


def test_the_method_of_another_run_is_not_drawn_into_this_one(run: Path) -> None:
    others = [{"step": n, "stage": "grpo", "time": 0.0, "reward": 9.0} for n in range(5)]
    write_lines(run / "metrics.jsonl", [*others, *PPO_ROWS])
    write_lines(run / "samples.jsonl", [{"steps": 1, "stage": "grpo", "prompt": "Whose is this?", "text": "another's"}])
    assert "also holds 5 steps of GRPO, which another run left in this folder; only PPO is shown" in notices(run)
    contents = gather(run)
    assert contents.metrics == PPO_ROWS
    assert contents.samples == []


def test_of_two_runs_in_one_log_the_later_is_shown(run: Path) -> None:
    first = [{"step": n, "stage": "ppo", "time": 0.0, "reward": 9.0} for n in range(5)]
    write_lines(run / "metrics.jsonl", [*first, *PPO_ROWS])
    assert "holds 5 steps of ppo twice, as when two runs share a folder" in notices(run)
    assert gather(run).metrics == PPO_ROWS


@pytest.mark.parametrize(
    ("ppo", "told"),
    [
        ({"state": "done", "finished": 10.0}, False),
        ({"state": "done", "finished": 30.0}, True),
        ({"state": "running", "started": 30.0}, True),
    ],
)
def test_figures_of_an_earlier_run_are_told_from_this_ones(run: Path, ppo: dict[str, Any], told: bool) -> None:
    write_json(run / "manifest.json", {"stages": {"ppo": ppo, "report": {"state": "done", "finished": 20.0}}})
    assert ("The stage ppo was begun again" in notices(run)) is told
