"""Which labelers agree with the others, and which answer as if they did not read."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from heedful.feedback.consensus import latest, settle
from heedful.records import Judgement, LabelerQuality

MIN_PROMPTS = 8  # with fewer, not even a labeler who is always wrong could be told from a bad day after correction
MIN_OTHERS = 2  # of two labelers who disagree, neither is the odd one
LEVEL = 0.05
NUM_DRAWS = 10_000
NUM_RESAMPLES = 1_000

RANDOM, LESS, FINE, TOO_FEW = (
    "answers like random clicks",
    "agrees less than the others",
    "agrees with the others",
    "too few to tell",
)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def kendall_s(first: Sequence[int], second: Sequence[int]) -> int:
    """Concordant minus discordant pairs of two rank vectors (of ranks, never of ids); a pair tied in either counts 0."""
    pairs = combinations(zip(first, second, strict=True), 2)
    return sum(_sign(a - b) * _sign(x - y) for (a, x), (b, y) in pairs)


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


def tau(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Kendall's tau-b of two rank vectors, -1 to 1; None where one of them orders no pair."""
    decided = [sum(a != b for a, b in combinations(vector, 2)) for vector in (first, second)]
    if 0 in decided:
        return None
    return kendall_s(first, second) / math.sqrt(decided[0] * decided[1])


class _Tally:
    """What one labeler's rankings come to against the others' consensus."""

    def __init__(self) -> None:
        self.num_judgements = 0
        self.s = self.num_right = self.num_decided = 0
        self.variance = 0.0
        self.tau_of: dict[str, float] = {}

    def add(self, prompt_id: str, own: Sequence[int], others: Sequence[int]) -> None:
        self.s += kendall_s(own, others)
        self.variance += kendall_variance(own, others)
        for (a, x), (b, y) in combinations(zip(own, others, strict=True), 2):
            self.num_decided += a != b and x != y
            self.num_right += _sign(a - b) * _sign(x - y) > 0
        if len(set(others)) > 1:
            # Whoever calls everything level where the others see an order has not agreed with them: 0, not undefined.
            # Else a default order that nobody touched would go unseen.
            value = tau(own, others)
            self.tau_of[prompt_id] = 0.0 if value is None else value

    @property
    def z(self) -> float | None:
        return self.s / math.sqrt(self.variance) if self.variance > 0 else None


def labeler_quality(judgements: Iterable[Judgement], weights: Mapping[str, float] | None = None) -> list[LabelerQuality]:
    """Leave-one-out quality of each labeler, sorted by name. weights: of the others in the consensus, 1 for those not named.

    Each ranking is held against the consensus of the *other* labelers of that prompt, made anew without this one. Prompts where
    the others come to no order, or share fewer than two ranked completions with the labeler, say nothing and are left out.

    z: Kendall's S summed over prompts, in standard deviations from "clicks at random"; about 0 for one who does not read.
    p: of the test whether the labeler agrees less with the others than the others do (`_lower_than_others`). q: p after
    Benjamini-Hochberg over the labelers who could be tested. suspect is q < LEVEL and nothing else; verdict adds whether
    random clicks would explain the labeler's answers too. Low agreement can be another view: a person decides what follows.
    reliability: mean tau-b, negative ones as 0. agreement: share of the pairs decided by both sides on which they agree.
    """
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    for prompt_id, found in latest(judgements).items():
        for own in found:
            tally = tallies[own.labeler]
            tally.num_judgements += 1
            ranks = settle(prompt_id, [other for other in found if other is not own], weights or {}).ranks
            shared = sorted(set(ranks) & set(own.ranks))
            tally.add(prompt_id, [own.ranks[id_] for id_ in shared], [ranks[id_] for id_ in shared])
    names = sorted(tallies)
    p_of = {name: _lower_than_others(name, {other: tallies[other].tau_of for other in names}) for name in names}
    tested = {name: p for name, p in p_of.items() if p is not None}
    corrected = stats.false_discovery_control(list(tested.values())) if tested else []
    q_of = {name: float(q) for name, q in zip(tested, corrected, strict=True)}
    return [_quality(name, tallies[name], p_of[name], q_of.get(name)) for name in names]


def _quality(name: str, tally: _Tally, p: float | None, q: float | None) -> LabelerQuality:
    suspect = q is not None and q < LEVEL
    like_random = tally.z is None or float(stats.norm.sf(tally.z)) > LEVEL
    taus = list(tally.tau_of.values())
    return LabelerQuality(
        labeler=name,
        num_judgements=tally.num_judgements,
        agreement=tally.num_right / tally.num_decided if tally.num_decided else None,
        reliability=min(1.0, max(0.0, math.fsum(taus) / len(taus))) if taus else 0.0,
        z=tally.z,
        p=p,
        q=q,
        suspect=suspect,
        verdict=TOO_FEW if q is None else (RANDOM if like_random else LESS) if suspect else FINE,
    )


def _lower_than_others(name: str, tau_of: Mapping[str, Mapping[str, float]]) -> float | None:
    """One-sided p that the labeler's tau lies below the mean of the other labelers' on the same prompts; None for too few.

    A permutation test within prompts: were the labeler as skilled as the rest, each of the values of tau on a prompt could as
    well have been theirs. Draws give the labeler one of them by lot, prompt by prompt, the others the rest. This is exact for
    any distribution of tau, which with four completions is lumpy, bounded and skewed; a t-test or flipping signs assumes
    that differences are normal or symmetric. A careless labeler drags down the consensus that everyone is held against and is
    among those whom a careful one is compared with: both only raise the careful one's p.
    """
    differences, lots = [], []
    for prompt_id, own in sorted(tau_of[name].items()):
        rest = sorted(taus[prompt_id] for other, taus in tau_of.items() if other != name and prompt_id in taus)
        if len(rest) >= MIN_OTHERS:
            values = np.array([own, *rest])
            # What the difference "mine less the others' mean" would be, were mine each of the values in turn.
            by_lot = values - (values.sum() - values) / len(rest)
            differences.append(by_lot[0])
            lots.append(by_lot)
    if len(differences) < MIN_PROMPTS:
        return None
    chance = np.random.default_rng(0)
    drawn = np.zeros(NUM_DRAWS)
    for by_lot in lots:
        drawn += np.sort(by_lot)[chance.integers(len(by_lot), size=NUM_DRAWS)]
    # The observed assignment is one of the possible ones, hence the ones added: p is never 0.
    as_low = int(np.sum(drawn <= sum(differences) + 1e-9))
    return (1 + as_low) / (1 + NUM_DRAWS)


def agreement(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """Numbers over all labelers for agreement.json: Krippendorff's alpha with its interval, mean pairwise tau-b, counts.

    tied_share: of the pairs in all rankings, those called level; None without pairs.
    """
    by_prompt = latest(judgements)
    found = [judgement for rows in by_prompt.values() for judgement in rows]
    taus = []
    for rows in by_prompt.values():
        for a, b in combinations(rows, 2):
            shared = sorted(set(a.ranks) & set(b.ranks))
            value = tau([a.ranks[id_] for id_ in shared], [b.ranks[id_] for id_ in shared])
            if value is not None:
                taus.append(value)
    level = [a == b for judgement in found for a, b in combinations(judgement.ranks.values(), 2)]
    return {
        "num_prompts": len(by_prompt),
        "num_labelers": len({judgement.labeler for judgement in found}),
        "num_judgements": len(found),
        "num_flags": sum(len(judgement.flagged) for judgement in found),
        "tied_share": sum(level) / len(level) if level else None,
        "mean_pairwise_tau": math.fsum(taus) / len(taus) if taus else None,
        **krippendorff(by_prompt),
    }


def krippendorff(by_prompt: Mapping[str, Sequence[Judgement]]) -> dict[str, float | None]:
    """Krippendorff's alpha (ordinal, by evalica) with a 95% interval; None where it is undefined.

    A unit is an ordered pair of completions of a prompt, a rating -1, 0 or 1 (first one better, level, second one better), so
    that prompts with different completions and rankings without the flagged ones can be joined. Every pair stands in both
    directions, else alpha would depend on ids. The interval resamples prompts: the pairs of a prompt hang together, and
    evalica's own bootstrap, which draws single pairs of ratings, would make it too narrow.
    """
    tables = []
    for rows in by_prompt.values():
        columns = []
        for a, b in combinations(sorted({id_ for judgement in rows for id_ in judgement.ranks}), 2):
            column = {j.labeler: _sign(j.ranks[a] - j.ranks[b]) for j in rows if a in j.ranks and b in j.ranks}
            if len(column) > 1:
                columns += [column, {labeler: -rating for labeler, rating in column.items()}]
        if columns:
            tables.append(columns)
    names = sorted({labeler for columns in tables for column in columns for labeler in column})
    ratings = [np.array([[c.get(name, np.nan) for c in columns] for name in names], dtype=float) for columns in tables]
    estimate = _alpha(ratings)
    chance = np.random.default_rng(0)
    draws = []
    if estimate is not None and len(ratings) > 1:
        for _ in range(NUM_RESAMPLES):
            drawn = _alpha([ratings[i] for i in chance.integers(len(ratings), size=len(ratings))])
            if drawn is not None:
                draws.append(drawn)
    low, high = np.quantile(draws, [0.025, 0.975]) if draws else (None, None)
    return {
        "krippendorff_alpha": estimate,
        "krippendorff_alpha_low": None if low is None else float(low),
        "krippendorff_alpha_high": None if high is None else float(high),
    }


def _alpha(ratings: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> float | None:
    """alpha of tables (labelers by units) side by side; None where all ratings are the same, as then nothing is expected."""
    import evalica  # with pandas it takes a second to import, which whoever asks for labeler_quality alone need not wait
    import pandas as pd

    if not ratings:
        return None
    table = np.concatenate(ratings, axis=1)
    if len(np.unique(table[~np.isnan(table)])) < 2:
        return None
    return float(evalica.alpha(pd.DataFrame(table), distance="ordinal").alpha)
