"""Rewards of episodes: what the environment paid, and on top of it what the configuration's terms say of the answer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from heedful.models.reward import Answer


class Earned:
    """terms: a reward of the ordinary kind that is added; None: the environment's alone.

    measured: `env_` and the name of each number that the environment measured, the mean over the last answers, and what the
    terms measured.
    """

    measured: dict[str, float]

    def __init__(self, terms: Callable[[Sequence[Answer]], list[float]] | None = None) -> None:
        self.terms = terms
        self.measured = {}

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        played = [answer.played for answer in answers if answer.played is not None]
        assert len(played) == len(answers), "an answer that no environment has played has earned nothing"
        names = dict.fromkeys(name for one in played for name in one.info)
        self.measured = {f"env_{name}": statistics.fmean(one.info.get(name, 0.0) for one in played) for name in names}
        earned = [one.earned for one in played]
        if self.terms is None:
            return earned
        extra = self.terms(answers)
        self.measured |= dict(getattr(self.terms, "measured", {}))
        return [value + more for value, more in zip(earned, extra, strict=True)]
