"""The page of rounds: what it says, and that hostile text in it is text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heedful.errors import StoreError
from heedful.report.rounds import build_rounds, sentence, table


def interval(estimate: float, half: float = 0.05) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - half, "high": estimate + half}


def row(name: str, mean: float, change: float | None = None, verdict: str = "improved") -> dict[str, Any]:
    measure: dict[str, Any] = {"mean": interval(mean)}
    about: dict[str, Any] = {}
    if change is not None:
        measure |= {"difference": interval(change), "verdict": verdict, "wins": interval(0.6)}
        about = {"num_judgements": 48, "num_pairs": 30, "krippendorff_alpha": 0.5, "reward_accuracy": interval(0.7)}
        about |= {"kl": interval(3.0), "steps": 5}
    return {"name": name, "believed": "rubric", "measures": {"reward": measure, "rubric": measure}} | about


ROWS = [row("base", 0.4), row("round 1", 0.5, 0.1), row("round 2", 0.6, 0.1)]


def write(folder: Path, rows: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "rounds.json").write_text(json.dumps({"judge": "round-2", "rounds": rows}))
    return folder


def test_the_page_shows_each_round(tmp_path: Path) -> None:
    page = build_rounds(write(tmp_path / "run<script>", ROWS)).read_text()
    assert "run&lt;script&gt;" in page
    assert "<script" not in page
    assert "Round 2 is better than the round before: rubric +0.10 [+0.05, +0.15]." in page
    assert '<td class="improved">improved</td>' in page
    markdown = (tmp_path / "run<script>" / "rounds.md").read_text()
    assert "| round 2 | 48 | 30 | 0.50 | 70.0% [65.0, 75.0] | 3.00 |" in markdown
    assert "| round 1 | 0.50 [0.45, 0.55] | +0.10 [+0.05, +0.15] | improved | 60.0% [55.0, 65.0] |" in markdown


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS[:2], "One round has been run"),
        ([*ROWS[:2], row("round 2", 0.4, -0.1, "worse")], "Round 2 is worse than the round before"),
        ([*ROWS[:2], row("round 2", 0.5, 0.0, "no clear change")], "No difference between round 2 and the round before"),
    ],
)
def test_the_sentence_says_what_the_interval_allows(rows: list[dict[str, Any]], said: str) -> None:
    assert sentence(rows).startswith(said)


def test_the_terminals_table_adds_labels_up() -> None:
    assert [cells[:2] for cells in table(ROWS)] == [("base", "0"), ("round 1", "48"), ("round 2", "96")]


@pytest.mark.parametrize("rows", [[], [{"name": "base"}], "text", None])
def test_a_broken_file_is_named(rows: object, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"rounds\.json: is no comparison of rounds"):
        build_rounds(write(tmp_path / "run", rows))
