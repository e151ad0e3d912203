"""Rewards made of rewards: a weighted sum, and an ensemble that distrusts what its members disagree on."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from heedful.engine import scoring
from heedful.models.reward import Answer, AnswerScorer

ENSEMBLE = "ensemble:"  # begins a source that lists members
Aggregate = Literal["mean", "mean-sd", "mean-variance", "worst"]


class Reward(Protocol):
    """A RewardFunction that can also say what it measured on the last answers."""

    measured: dict[str, float]

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One finite number an answer, in order."""


class ModelReward:
    """The rewards of one model, computed in batches without gradient."""

    measured: dict[str, float]

    def __init__(self, model: AnswerScorer) -> None:
        self.model = model
        self.measured = {}

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        return scoring.rewards(self.model, answers)


@dataclass(frozen=True)
class Scale:
    """What makes members comparable: (reward - mean) / sd, over the answers they were trained on."""

    mean: float = 0.0
    sd: float = 1.0


class Ensemble:
    """mean - c sd over members (Coste et al. 2023, with the standard deviation in place of the variance), or another rule.

    measured: ensemble_sd, the members' standard deviation on an answer (over k, not k - 1), averaged over the answers.
    """

    measured: dict[str, float]

    def __init__(
        self, members: Sequence[Reward], *, aggregate: Aggregate, coef: float, scales: Sequence[Scale] | None = None
    ) -> None:
        self.members = list(members)
        self.aggregate: Aggregate = aggregate
        self.coef = coef
        self.scales = list(scales) if scales is not None else [Scale()] * len(self.members)
        self.measured = {}

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        columns = [
            [(value - scale.mean) / scale.sd for value in member(answers)]
            for member, scale in zip(self.members, self.scales, strict=True)
        ]
        rows = list(zip(*columns, strict=True))
        spreads = [statistics.pstdev(row) for row in rows]
        self.measured = {"ensemble_sd": statistics.fmean(spreads)} if spreads else {}
        return [combine(row, self.aggregate, self.coef) for row in rows]


def combine(rewards: Sequence[float], aggregate: Aggregate, coef: float) -> float:
    """One reward of several members'. Sd and variance are over the members as a whole population.

    mean-variance is UWO and worst is WCO of Coste et al. 2023.
    """
    if aggregate == "worst":
        return min(rewards)
    mean = statistics.fmean(rewards)
    if aggregate == "mean-sd":
        return mean - coef * statistics.pstdev(rewards)
    if aggregate == "mean-variance":
        return mean - coef * statistics.pvariance(rewards)
    return mean


@dataclass(frozen=True)
class Term:
    """One summand."""

    name: str
    weight: float
    reward: Reward


@dataclass
class WeightedSum:
    """sum of weight * reward over terms.

    measured: of each term, when there are several, its mean share of the sum (weight included, so they add up to the mean
    reward) as term_NAME; and the disagreement of ensembles. When all answers of a batch get one and the same reward it says
    so on stderr, once until that changes.
    """

    terms: Sequence[Term]
    measured: dict[str, float] = field(default_factory=dict)
    constant: bool = False

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        total = [0.0] * len(answers)
        measured: dict[str, float] = {}
        several = len(self.terms) > 1
        for term in self.terms:
            shares = [term.weight * value for value in term.reward(answers)]
            total = [a + b for a, b in zip(total, shares, strict=True)]
            if several and shares:
                measured[f"term_{term.name}"] = statistics.fmean(shares)
            measured |= {f"{key}_{term.name}" if several else key: value for key, value in term.reward.measured.items()}
        self.measured = measured
        self._say_when_constant(total)
        return total

    def _say_when_constant(self, rewards: Sequence[float]) -> None:
        constant = len(rewards) > 1 and min(rewards) == max(rewards)
        if constant and not self.constant:
            print(
                f"all {len(rewards)} answers got the same reward, {rewards[0]:g}: there is nothing to learn from that; "
                "if it stays so, look at what the reward reads",
                file=sys.stderr,
            )
        self.constant = constant


class Measuring:
    """A function that scores, with what the reward behind it measured."""

    def __init__(self, score: Callable[[Sequence[Answer]], list[float]], reward: Reward) -> None:
        self.score = score
        self.reward = reward

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        return self.score(answers)

    @property
    def measured(self) -> dict[str, float]:
        return self.reward.measured
