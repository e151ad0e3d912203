"""Judges that weigh each answer alone: a reward model, a classifier, a contrastive score. The larger number is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from heedful.judging.calls import Calls, key_of
from heedful.judging.judge import Opinion, Pair, logistic
from heedful.judging.writing import plain
from heedful.records import Message

TOGETHER = 64  # texts between two that are kept

# Conversations and answers to them.
Texts = Sequence[tuple[tuple[Message, ...], str]]
# From texts to a number each, in order; NaN where none could be had.
Score = Callable[[Texts], Sequence[float]]


class PairJudge(Protocol):
    """Whoever says of two answers which is better: a `Judge` of letters, a council of principles, or `Scored`.

    name: what it is called beside its verdicts, labeler in its judgements. ordered: whether it is shown both answers at once,
    so that its answer may depend on their order.
    """

    name: str
    ordered: bool

    def __call__(self, pairs: Sequence[Pair]) -> Sequence[Opinion]:
        """One opinion a pair, in order."""


class Scored:
    """A score as a judge of pairs: p = sigmoid((score of the second - score of the first) / unit), whatever the order.

    unit: of the score, that stands for a nat of preference; 1 for what was trained as p = sigmoid(difference), reward models.
    """

    ordered = False

    def __init__(self, name: str, score: Score, *, unit: float = 1.0) -> None:
        self.name = name
        self.score = score
        self.unit = unit

    def __call__(self, pairs: Sequence[Pair]) -> list[Opinion]:
        """A text that stands in several pairs is scored once."""
        texts = list(dict.fromkeys((pair.messages, text) for pair in pairs for text in (pair.first, pair.second)))
        scores = dict(zip(texts, self.score(texts), strict=True))
        found = []
        for pair in pairs:
            p = logistic((scores[pair.messages, pair.second] - scores[pair.messages, pair.first]) / self.unit)
            found.append(Opinion(p, p))
        return found


class JournaledScore:
    """A score that weighs nothing twice: numbers are kept as they come, and are there again after a crash.

    identity: what they depend on beside the text. told: hears of texts done and their number.
    """

    def __init__(
        self, score: Score, identity: str, calls: Calls | None, told: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        self.score = score
        self.identity = identity
        self.calls = calls
        self.told = told

    def __call__(self, texts: Texts) -> list[float]:
        keys = [key_of(self.identity, plain(messages), text) for messages, text in texts]
        known = self.calls.values if self.calls is not None else {}
        found = {key: float(known[key]) for key in keys if key in known}
        waiting = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        for start in range(0, len(waiting), TOGETHER):
            some = list(waiting)[start : start + TOGETHER]
            scores = dict(zip(some, self.score([waiting[key] for key in some]), strict=True))
            found |= scores
            if self.calls is not None:
                self.calls.add({key: value for key, value in scores.items() if math.isfinite(value)})
            self.told(len(texts) - len(waiting) + start + len(some), len(texts))
        return [found[key] for key in keys]


def sharpened(opinion: Opinion, slope: float) -> Opinion:
    """The opinion with both log-odds times `slope`: below 1 for a judge that is surer than it is right."""
    as_b, as_a = (logistic(slope * log_odds(p)) for p in (opinion.as_b, opinion.as_a))
    return replace(opinion, as_b=as_b, as_a=as_a)


def log_odds(p: float) -> float:
    """Natural-log odds; infinite at 0 and 1, NaN for NaN."""
    if p in (0.0, 1.0):
        return math.inf if p else -math.inf
    return math.log(p) - math.log1p(-p)
