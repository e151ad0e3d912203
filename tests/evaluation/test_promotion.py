"""When a new version is refused, and when it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heedful.errors import DataError
from heedful.evaluation.promotion import objections
from heedful.evaluation.rounds import Measured, compare_rounds

CHANCES: dict[str, Any] = {"num_resamples": 500, "seed": 0}
PROMPTS = [f"p{n}" for n in range(60)]


def rewards(shift: float, *, noise: float = 0.1) -> tuple[list[float], list[float]]:
    """Old ones of standard deviation 1, and new ones that are `shift` more."""
    chance = np.random.default_rng(0)
    before = chance.normal(0, 1, len(PROMPTS))
    return list(before), list(before + shift + chance.normal(0, noise, len(PROMPTS)))


@pytest.mark.parametrize(
    ("shift", "margin", "said"),
    [
        (0.5, 0.0, ""),
        (0.0, 0.1, ""),
        (0.0, 0.0, "may have fallen"),
        (-0.01, 0.1, ""),
        (-0.05, 0.1, "reward fell by 0."),
        (-0.5, 0.1, "reward fell by 0."),
    ],
)
def test_the_interval_may_not_reach_below_the_margin(shift: float, margin: float, said: str) -> None:
    found = objections({}, {"reward": rewards(shift)}, PROMPTS, margin=margin, **CHANCES)
    assert bool(found) == bool(said)
    assert not found or said in found[0]


def test_few_prompts_are_a_reason_to_refuse() -> None:
    before, after = rewards(0.2, noise=2.0)
    (said,) = objections({}, {"reward": (before[:6], after[:6])}, PROMPTS[:6], margin=0.1, **CHANCES)
    assert "more held-out prompts" in said
    (said,) = objections({}, {"gold": (before[:1], after[:1])}, PROMPTS[:1], margin=0.1, **CHANCES)
    assert said.startswith("gold: one held-out prompt")


def test_whatever_became_clearly_worse_speaks_against_it() -> None:
    change = {"estimate": 0.2, "low": 0.1, "high": 0.3}
    compared = {
        "toxicity": {"label": "Toxicity", "verdict": "worse", "difference": change},
        "length": {"label": "Length in tokens", "verdict": "grew", "difference": change},
        "reward": {"label": "Reward", "verdict": "worse", "difference": change},
    }
    assert objections(compared, {"reward": rewards(0.5)}, PROMPTS, margin=0.1, **CHANCES) == [
        "Toxicity became worse: +0.2 (95% 0.1 to 0.3)"
    ]


def test_a_ties_half_and_prompts_without_a_measure_are_left_out() -> None:
    first = Measured("base", ["a", "a", "b"], {"rubric": [0.1, 0.2, None]})
    second = Measured("round 1", ["a", "a", "b"], {"rubric": [0.1, 0.4, None]})
    rows = compare_rounds([first, second], **CHANCES)
    assert rows[1]["measures"]["rubric"]["wins"]["estimate"] == pytest.approx(0.75)
    assert rows[1]["measures"]["rubric"]["difference"]["estimate"] == pytest.approx(0.1)
    assert "wins" not in rows[0]["measures"]["rubric"]


def test_rounds_that_answered_other_prompts_are_not_compared() -> None:
    rows = [Measured(name, prompts, {"reward": [1.0]}) for name, prompts in (("base", ["a"]), ("round 1", ["b"]))]
    with pytest.raises(DataError, match="round 1 and base did not answer the same held-out prompts"):
        compare_rounds(rows, **CHANCES)
