"""Whether a set's judgements have settled it, and how much one more of them would tell.

A labeler is taken to say what is so with probability ACCURACY and any of the other outcomes equally often otherwise, whoever
else judged it. With a flat prior over the outcomes of a pair (better, level, worse) or of a single completion (up or down,
flagged or not), n votes for each leave

    P(outcome) = (ACCURACY / slip)^n / sum over outcomes of the same,    slip = (1 - ACCURACY) / (outcomes - 1)

ACCURACY is that of people who agree with each other on 73% of pairs, as the labelers of the well-known studies do: two who are
right with probability q agree with q^2 + (1 - q)^2.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

ACCURACY = 0.84
CLEAR = 0.9


class Ranking(NamedTuple):
    """One labeler's: ranks by completion id, 1 best, and the ids flagged."""

    ranks: Mapping[str, int]
    flagged: Collection[str]


@dataclass(frozen=True)
class Outlook:
    """confidence: mean over what is to be decided of the probability that the leading outcome is right.

    information: mutual information of the next judgement and the truth, mean in nats over the same.
    """

    confidence: float
    information: float

    @property
    def clear(self) -> bool:
        return self.confidence >= CLEAR


def outlook(ids: Sequence[str], rankings: Sequence[Ranking], *, thumbs: bool = False) -> Outlook:
    """What is known of a set of completions, ids of equal texts given once.

    To be decided is the order of each pair that is not flagged by most, and the flag of each completion that somebody flagged;
    with thumbs, where rank 1 is up and rank 2 is down, which of the two each completion gets. Raises ValueError where that
    is nothing.
    """
    found = list(_each(ids, rankings) if thumbs else _pairs(ids, rankings))
    if not found:
        raise ValueError(f"a set of {len(ids)} different completions has nothing to decide")
    posteriors = [_posterior(counts) for counts in found]
    return Outlook(
        confidence=math.fsum(max(shares) for shares in posteriors) / len(posteriors),
        information=math.fsum(map(_information, posteriors)) / len(posteriors),
    )


def _each(ids: Sequence[str], rankings: Sequence[Ranking]) -> Iterator[tuple[int, ...]]:
    for id_ in ids:
        yield tuple(sum(ranking.ranks.get(id_) == place for ranking in rankings) for place in (1, 2))


def _pairs(ids: Sequence[str], rankings: Sequence[Ranking]) -> Iterator[tuple[int, ...]]:
    kept = []
    for id_ in ids:
        flags = sum(id_ in ranking.flagged for ranking in rankings)
        others = sum(id_ in ranking.ranks for ranking in rankings)
        if flags:
            yield flags, others
        if flags <= others:
            kept.append(id_)
    for a, b in combinations(kept, 2):
        both = [(r.ranks[a], r.ranks[b]) for r in rankings if a in r.ranks and b in r.ranks]
        yield sum(x < y for x, y in both), sum(x == y for x, y in both), sum(x > y for x, y in both)


def _posterior(counts: Sequence[int]) -> list[float]:
    odds = math.log(ACCURACY * (len(counts) - 1) / (1 - ACCURACY))
    most = max(counts)
    shares = [math.exp(odds * (count - most)) for count in counts]
    return [share / math.fsum(shares) for share in shares]


def _information(posterior: Sequence[float]) -> float:
    """H(next vote) - H(next vote | truth); not below 0, which rounding could make of it."""
    slip = (1 - ACCURACY) / (len(posterior) - 1)
    forecast = [p * ACCURACY + (1 - p) * slip for p in posterior]
    given_truth = [ACCURACY, *[slip] * (len(posterior) - 1)]
    return max(0.0, _entropy(forecast) - _entropy(given_truth))


def _entropy(shares: Sequence[float]) -> float:
    return -math.fsum(share * math.log(share) for share in shares if share > 0)
