"""Weighted sums and ensembles: their arithmetic by hand, and what they say of themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.models.reward import Answer
from heedful.records import Message
from heedful.rewards.mixture import Ensemble, Scale, Term, WeightedSum, combine

ANSWERS = [Answer((Message(role="user", content="Hi"),), text, [], []) for text in ("a", "b", "c")]
# Sums of a few numbers below 1000 in float64.
EXACT = 1e-9

members = st.lists(st.floats(-100, 100), min_size=2, max_size=5)


class Fixed:
    """A reward that gives what it is told to."""

    def __init__(self, values: Sequence[float], **measured: float) -> None:
        self.values = list(values)
        self.measured = dict(measured)

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        return self.values[: len(answers)]


def test_weighted_sum_by_hand() -> None:
    terms = [Term("kind", 2.0, Fixed([1, 2, 3])), Term("long", -0.5, Fixed([10, 0, 4], ensemble_sd=0.7))]
    mixed = WeightedSum(terms)
    assert mixed(ANSWERS) == [2 - 5, 4 - 0, 6 - 2]
    # Shares: (2 + 4 + 6) / 3 and -(5 + 0 + 2) / 3; together the mean reward, 5 / 3.
    assert mixed.measured == pytest.approx({"term_kind": 4.0, "term_long": -7 / 3, "ensemble_sd_long": 0.7})


def test_a_single_term_is_itself_and_logs_no_share() -> None:
    mixed = WeightedSum([Term("only", 1.0, Fixed([0.1, 0.2, 0.3], ensemble_sd=1.0))])
    assert mixed(ANSWERS) == [0.1, 0.2, 0.3]
    assert mixed.measured == {"ensemble_sd": 1.0}


def test_constant_rewards_are_said_once_in_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    source = Fixed([0.5, 0.5, 0.5])
    mixed = WeightedSum([Term("flat", 1.0, source)])
    for _ in range(3):
        mixed(ANSWERS)
    said = capsys.readouterr().err
    assert said.count("all 3 answers got the same reward, 0.5: there is nothing to learn") == 1
    source.values = [0.5, 0.6, 0.5]
    mixed(ANSWERS)
    assert capsys.readouterr().err == ""
    source.values = [0.5, 0.5, 0.5]
    mixed(ANSWERS)
    assert "same reward" in capsys.readouterr().err


def test_one_answer_alone_is_not_called_constant(capsys: pytest.CaptureFixture[str]) -> None:
    WeightedSum([Term("flat", 1.0, Fixed([0.5]))])(ANSWERS[:1])
    assert capsys.readouterr().err == ""


def test_ensemble_rules_by_hand() -> None:
    # 1, 2, 6: mean 3, squares of distances 4 + 1 + 9, variance 14 / 3, sd 2.160247.
    assert combine([1, 2, 6], "mean", 9) == pytest.approx(3, abs=EXACT)
    assert combine([1, 2, 6], "worst", 9) == 1
    assert combine([1, 2, 6], "mean-variance", 0.3) == pytest.approx(3 - 0.3 * 14 / 3, abs=EXACT)
    assert combine([1, 2, 6], "mean-sd", 0.5) == pytest.approx(3 - 0.5 * 2.160246899, abs=1e-8)


def test_ensemble_scales_its_members_and_measures_disagreement() -> None:
    first, second = Fixed([3, 5, 1]), Fixed([40, 40, 20])
    both = Ensemble([first, second], aggregate="mean-sd", coef=1.0, scales=[Scale(1, 2), Scale(20, 10)])
    # Scaled: 1, 2, 0 and 2, 2, 0. Means 1.5, 2, 0; two values' sd is half their distance: 0.5, 0, 0.
    assert both(ANSWERS) == pytest.approx([1.0, 2.0, 0.0], abs=EXACT)
    assert both.measured == pytest.approx({"ensemble_sd": 0.5 / 3})


@given(members, st.floats(0, 5), st.randoms(use_true_random=False))
def test_ensemble_properties(rewards: list[float], coef: float, random: object) -> None:
    low, high = min(rewards), max(rewards)
    mean = math.fsum(rewards) / len(rewards)
    assert combine(rewards, "worst", coef) == low
    for rule in ("mean-sd", "mean-variance"):
        found = combine(rewards, rule, coef)  # type: ignore[arg-type]
        assert found <= mean + EXACT, "disagreement never earns anything"
        shuffled = list(rewards)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        assert combine(shuffled, rule, coef) == pytest.approx(found, abs=1e-6)  # type: ignore[arg-type]
        same = combine([high] * len(rewards), rule, coef)  # type: ignore[arg-type]
        assert same == pytest.approx(high, abs=EXACT), "members at one keep their reward"
    # A shift of all members shifts the reward; sd scales with them.
    shifted = combine([r + 3 for r in rewards], "mean-sd", coef)
    assert shifted == pytest.approx(combine(rewards, "mean-sd", coef) + 3, abs=1e-6)
