"""Kendall's rank correlation with ties. All of it takes vectors of ranks, never lists of ids."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations


def sign(value: int) -> int:
    return (value > 0) - (value < 0)


def kendall_s(first: Sequence[int], second: Sequence[int]) -> int:
    """Concordant minus discordant pairs of two rank vectors; a pair tied in either counts 0."""
    pairs = combinations(zip(first, second, strict=True), 2)
    return sum(sign(a - b) * sign(x - y) for (a, x), (b, y) in pairs)


def kendall_variance(first: Sequence[int], second: Sequence[int]) -> float:
    """Variance of Kendall's S when one of the vectors is shuffled at random; its mean is 0.

    n(n-1)(2n+5)/18 without ties; with ties in either or both, the exact variance over permutations of Kendall, "The treatment
    of ties in ranking problems", Biometrika 33 (1945), also in his "Rank Correlation Methods", chapter 4. t and u are the
    sizes of the groups of ties in the two vectors.
    """
    n = len(first)
    if n < 2:
        return 0.0
    t, u = Counter(first).values(), Counter(second).values()
    untied, tied_t, tied_u = (sum(k * (k - 1) * (2 * k + 5) for k in groups) for groups in ([n], t, u))
    pairs_t, pairs_u = (sum(k * (k - 1) for k in groups) for groups in (t, u))
    triples_t, triples_u = (sum(k * (k - 1) * (k - 2) for k in groups) for groups in (t, u))
    variance = (untied - tied_t - tied_u) / 18 + pairs_t * pairs_u / (2 * n * (n - 1))
    return variance + (triples_t * triples_u / (9 * n * (n - 1) * (n - 2)) if n > 2 else 0.0)


def num_decided(vector: Sequence[int]) -> int:
    """Pairs that a rank vector does not call level."""
    return sum(a != b for a, b in combinations(vector, 2))


def tau(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Kendall's tau-b of two rank vectors, -1 to 1; None where one of them orders no pair."""
    decided = [num_decided(vector) for vector in (first, second)]
    if 0 in decided:
        return None
    return kendall_s(first, second) / math.sqrt(decided[0] * decided[1])
