"""The report: its numbers are the run's, model output stays text, and what is missing is said."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from heedful.report.build import build, compare_table, findings
from heedful.store import write_json

HOSTILE = '</script><script>alert(1)</script> {{ 7 * 7 }} "quoted" <img src=x onerror=alert(1)>'


def interval(estimate: float, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"estimate": estimate, "low": low, "high": high}


def quantity(label: str, before: float, after: float, verdict: str) -> dict[str, Any]:
    difference = interval(after - before, after - before - 0.1, after - before + 0.1)
    sides = {"before": interval(before), "after": interval(after)}
    return {"label": label, "better": "higher", "num_prompts": 3, **sides, "difference": difference, "verdict": verdict}


def summary() -> dict[str, Any]:
    return {
        "model": "tiny",
        "seed": 7,
        "heedful_version": "0",
        "created_at": "2026-01-01T00:00:00+00:00",
        "command": "heedful demo",
        "compare": {
            "reward": quantity("Reward", 0.1234, 0.9876, "improved"),
            "toxicity": quantity("Toxicity", 0.01, 0.02, "no clear change"),
            "refusal_safe": quantity("Refusals of safe prompts", 0.0, 0.5, "worse"),
        },
        "kl": interval(3.21, 2.5, 4.0),
        "kl_target": 6.0,
        "reward_model": {
            "num_pairs": 40,
            "num_prompts": 12,
            "accuracy": interval(0.7, 0.55, 0.82),
            "longest_answer": 0.45,
            "above_longest_answer": interval(0.25, 0.05, 0.4),
            "steps": 9,
        },
        "labelers": [
            {
                **{"labeler": "simulated-4", "num_judgements": 8, "agreement": 0.4, "reliability": 0.0, "z": -1.0, "p": 0.001},
                **{"q": 0.004, "suspect": True, "verdict": "answers like random clicks"},
            }
        ],
        "agreement": {"krippendorff_alpha": None, "krippendorff_alpha_low": None, "krippendorff_alpha_high": None},
        "ppo": {"steps": 2, "stopped": "step limit"},
        "counts": {"train": 24, "heldout": 9},
        "seconds": {"sample": 12.0},
        "peak_memory_mb": 2048.0,
        "simulated_labelers": True,
    }


def row(prompt_id: str, reward: float, text: str) -> dict[str, Any]:
    return {
        **{"prompt_id": prompt_id, "completion_id": f"{prompt_id}/1", "tags": ["helpful"], "prompt": HOSTILE, "text": text},
        **{"reward": reward, "rubric": 0.5, "toxicity": 0.1, "refusal_harmful": 0.0, "refusal_safe": 0.0},
        **{"finished": 1.0, "length": 3.0},
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_json(tmp_path / "summary.json", summary())
    metrics = [
        {"step": 0, "stage": "ppo", "time": 1.0, "reward": 0.5, "kl_policy_ref": 0.0, "entropy": 2.0, "length": 9.0},
        {"step": 1, "stage": "ppo", "time": 2.0, "reward": 0.75, "kl_policy_ref": 1.5, "entropy": 1.9, "heldout_reward": 0.625},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (tmp_path / "evaluate").mkdir()
    before = [row("p1", 0.1, HOSTILE), row("p2", 0.9, "good"), row("p3", math.nan, "odd")]
    after = [row("p1", 0.4, "better"), row("p2", 0.2, HOSTILE), row("p3", 0.3, "even")]
    for name, rows in (("before", before), ("after", after)):
        (tmp_path / "evaluate" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    return tmp_path


def page(run: Path) -> str:
    text = build(run).read_text()
    # Without plotly's own code, which is 4 MB of somebody else's text.
    return re.sub(r"<script>(?!\nconst figures).*?</script>", "", text, flags=re.DOTALL)


def test_numbers_on_the_page_are_the_runs(run: Path) -> None:
    text = page(run)
    for shown in ("0.123", "0.988", "+0.864 [+0.764, +0.964]", "70.0% [55.0, 82.0]", "3.21 nats", "0.0040", "2.00 GB"):
        assert shown in text, shown
    figures = json.loads(re.search(r"const figures = (\[.*\]);", text).group(1).replace("<\\/", "</"))  # type: ignore[union-attr]
    reward = figures[0]["data"]
    assert (reward[0]["x"], reward[0]["y"]) == ([1, 2], [0.5, 0.75])
    assert (reward[1]["x"], reward[1]["y"]) == ([2], [0.625])


def test_model_output_stays_text(run: Path) -> None:
    text = page(run)
    assert "<script>alert(1)" not in text
    assert "<img src=x" not in text
    assert "{{ 7 * 7 }}" in text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text


def test_page_needs_no_network(run: Path) -> None:
    text = page(run)
    assert not re.search(r"(?:src|href)=[\"']?https?:", text)
    assert build(run).stat().st_size < 8_000_000


def test_worst_regressions_are_shown(run: Path) -> None:
    text = page(run)
    assert "The largest losses of reward" in text
    assert "(-0.70)" in text


def test_what_did_not_improve_is_said_first_hand() -> None:
    said = findings(summary())
    assert said[:3] == ["Reward improved.", "Toxicity did not clearly change.", "Refusals of safe prompts got worse."]


def test_simulated_labelers_are_named_as_such(run: Path) -> None:
    assert "simulated labelers" in page(run)
    write_json(run / "summary.json", summary() | {"simulated_labelers": False})
    assert "simulated labelers" not in page(run)


def test_missing_stages_leave_a_sentence(tmp_path: Path) -> None:
    text = build(tmp_path).read_text()
    assert "The evaluation has not run yet" in text
    assert "Plotly" not in text


def test_terminal_table_fits_80_columns() -> None:
    rows = [*compare_table(summary()), ("", "before", "after", "difference", "")]
    widths = [max(len(line[column]) for line in rows) for column in range(5)]
    assert sum(widths) + 2 * 5 <= 80
    one = summary()
    one["compare"]["reward"]["difference"] = interval(0.5)
    assert compare_table(one)[0][3] == "+0.500"
