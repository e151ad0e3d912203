"""A run directory made by hand, for tests of the report: hostile text where a model or a person could have put it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from heedful.store import write_json

HOSTILE = "</script><script>alert(1)</script> {{ 7 * 7 }} \"quoted\" 'single' <img src=x onerror=alert(1)> <!-- \ud800 \u2028"


def interval(estimate: float, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"estimate": estimate, "low": low, "high": high}


def quantity(label: str, before: float, after: float, verdict: str, *, better: str | None = "higher") -> dict[str, Any]:
    difference = interval(after - before, after - before - 0.1, after - before + 0.1)
    sides = {"before": interval(before), "after": interval(after)}
    return {"label": label, "better": better, "num_prompts": 3, **sides, "difference": difference, "verdict": verdict}


def labeler(name: str, *, suspect: bool, verdict: str) -> dict[str, Any]:
    found = {"labeler": name, "num_judgements": 8, "agreement": 0.4375, "reliability": 0.0, "z": -1.0, "p": 0.001, "q": 0.0042}
    return found | {"suspect": suspect, "verdict": verdict}


def summary() -> dict[str, Any]:
    return {
        "model": "tiny",
        "seed": 7,
        "heedful_version": "0.9.1",
        "created_at": "2026-01-01T00:00:00+00:00",
        "command": "heedful run 'my config.toml'",
        "compare": {
            "reward": quantity("Reward", 0.1234, 0.9876, "improved"),
            "toxicity": quantity("Toxicity", 0.01, 0.02, "no clear change", better="lower"),
            "refusal_safe": quantity("Refusals of safe prompts", 0.0, 0.5, "worse", better="lower"),
            "length": quantity("Length in tokens", 40.0, 18.0, "shrank", better=None),
        },
        "kl": interval(3.21, 2.54, 4.03),
        "kl_target": 6.0,
        "reward_model": {
            "num_pairs": 43,
            "num_prompts": 12,
            "accuracy": interval(0.7, 0.55, 0.82),
            "longest_answer": 0.45,
            "above_longest_answer": interval(0.25, -0.05, 0.4),
            "steps": 9,
        },
        "labelers": [
            labeler("anna", suspect=False, verdict="agrees with the others"),
            labeler("simulated-4", suspect=True, verdict="answers like random clicks"),
        ],
        "agreement": {"krippendorff_alpha": 0.31, "krippendorff_alpha_low": 0.22, "krippendorff_alpha_high": 0.41},
        "align": {"method": "ppo", "steps": 2, "stopped": "step limit"},
        "counts": {"train": 24, "heldout": 9},
        "seconds": {"sample": 12.0, "ppo": 374.0},
        "peak_memory_mb": 2048.0,
        "predicted_memory_mb": 1945.6,
        "simulated_labelers": True,
    }


def row(prompt_id: str, sample: int, reward: float, text: str) -> dict[str, Any]:
    return {
        **{
            "prompt_id": prompt_id,
            "completion_id": f"{prompt_id}/{sample}",
            "tags": [HOSTILE],
            "prompt": HOSTILE,
            "text": text,
        },
        **{"reward": reward, "rubric": 0.5, "toxicity": 0.1, "refusal_harmful": 0.0, "refusal_safe": 0.0},
        **{"finished": 1.0, "length": 3.0},
    }


PPO_ROWS = [
    {"step": 0, "stage": "ppo", "time": 1.0, "reward": 0.5, "kl_policy_ref": 0.0, "entropy": 2.0, "length": 9.0},
    {"step": 1, "stage": "ppo", "time": 2.0, "reward": 0.75, "kl_policy_ref": 1.5, "entropy": 1.9, "heldout_reward": 0.625},
]
REWARD_ROWS = [{"step": 0, "stage": "reward", "time": 0.5, "loss": 0.69, "accuracy": 0.5, "heldout_accuracy": 0.55}]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in rows), encoding="utf-8")


def write_run(tmp_path: Path) -> Path:
    """A small run directory, without a model."""
    write_json(tmp_path / "summary.json", summary())
    write_lines(tmp_path / "metrics.jsonl", [*REWARD_ROWS, *PPO_ROWS])
    before = [row("p1", 1, 0.1, HOSTILE), row("p2", 1, 0.9, "good"), row("p3", 1, math.nan, "odd"), row("p2", 2, 0.8, "fine")]
    after = [row("p1", 1, 0.4, "better"), row("p2", 1, 0.2, HOSTILE), row("p3", 1, 0.3, "even"), row("p2", 2, 0.7, "dull")]
    write_lines(tmp_path / "evaluate" / "before.jsonl", before)
    write_lines(tmp_path / "evaluate" / "after.jsonl", after)
    return tmp_path
