"""Each labeler against the consensus of the others: how far they agree, and whether one agrees less than the rest."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

from heedful.feedback.consensus import latest, settle
from heedful.feedback.kendall import kendall_s, kendall_variance, sign, tau
from heedful.records import Judgement

LEVEL = 0.05
MIN_PROMPTS = 8  # with fewer, not even a labeler who is always wrong could be told from a bad day after correction
MIN_OTHERS = 2  # of two labelers who disagree, neither is the odd one
NUM_DRAWS = 10_000


@dataclass(frozen=True)
class LeftOut:
    """One labeler against the consensus of the others; fields as in LabelerQuality."""

    num_judgements: int
    agreement: float | None
    reliability: float
    z: float | None
    p: float | None
    q: float | None = None

    @property
    def suspect(self) -> bool:
        """Agrees less with the others than they do: q < LEVEL and nothing else."""
        return self.q is not None and self.q < LEVEL


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
            self.num_right += sign(a - b) * sign(x - y) > 0
        if len(set(others)) > 1:
            # Whoever calls everything level where the others see an order has not agreed with them: 0, not undefined.
            # Else a default order that nobody touched would go unseen.
            value = tau(own, others)
            self.tau_of[prompt_id] = 0.0 if value is None else value

    def left_out(self, p: float | None) -> LeftOut:
        taus = list(self.tau_of.values())
        return LeftOut(
            num_judgements=self.num_judgements,
            agreement=self.num_right / self.num_decided if self.num_decided else None,
            reliability=min(1.0, max(0.0, math.fsum(taus) / len(taus))) if taus else 0.0,
            z=self.s / math.sqrt(self.variance) if self.variance > 0 else None,
            p=p,
        )


def leave_one_out(judgements: Iterable[Judgement], weights: Mapping[str, float] | None = None) -> dict[str, LeftOut]:
    """Each labeler against the others, sorted by name. weights: of the others in the consensus, 1 for those not named.

    Each ranking is held against the consensus of the *other* labelers of that prompt, made anew without this one. Prompts where
    the others come to no order, or share fewer than two ranked completions with the labeler, say nothing and are left out.

    z: Kendall's S summed over prompts, in standard deviations from "clicks at random"; about 0 for one who does not read.
    p: of the test whether the labeler agrees less with the others than the others do (`_lower_than_others`). q: p after
    Benjamini-Hochberg over the labelers who could be tested. reliability: mean tau-b, negative ones as 0. agreement: share of
    the pairs decided by both sides on which they agree.
    """
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    for prompt_id, found in latest(judgements).items():
        for own in found:
            tally = tallies[own.labeler]
            tally.num_judgements += 1
            ranks = settle(prompt_id, [other for other in found if other is not own], weights or {}).ranks
            shared = sorted(set(ranks) & set(own.ranks))
            tally.add(prompt_id, [own.ranks[id_] for id_ in shared], [ranks[id_] for id_ in shared])
    taus: dict[str, dict[str, float]] = defaultdict(dict)
    for name, tally in tallies.items():
        for prompt_id, value in tally.tau_of.items():
            taus[prompt_id][name] = value
    made = {}
    for name, tally in sorted(tallies.items()):
        made[name] = tally.left_out(_lower_than_others(name, [taus[prompt_id] for prompt_id in sorted(tally.tau_of)]))
    tested = {name: entry.p for name, entry in made.items() if entry.p is not None}
    corrected = stats.false_discovery_control(list(tested.values())) if tested else []
    q_of = {name: float(q) for name, q in zip(tested, corrected, strict=True)}
    return {name: replace(entry, q=q_of.get(name)) for name, entry in made.items()}


def _lower_than_others(name: str, taus: Iterable[Mapping[str, float]]) -> float | None:
    """One-sided p that the labeler's tau lies below the mean of the other labelers' on the same prompts; None for too few.

    taus: for each prompt that this one ranked, those of all who ranked it, by name.

    A permutation test within prompts: were the labeler as skilled as the rest, each of the values of tau on a prompt could as
    well have been theirs. Draws give the labeler one of them by lot, prompt by prompt, the others the rest. This is exact for
    any distribution of tau, which with four completions is lumpy, bounded and skewed; a t-test or flipping signs assumes
    that differences are normal or symmetric. A careless labeler drags down the consensus that everyone is held against and is
    among those whom a careful one is compared with: both only raise the careful one's p.
    """
    differences, lots = [], []
    for found in taus:
        rest = sorted(value for other, value in found.items() if other != name)
        if len(rest) >= MIN_OTHERS:
            values = np.array([found[name], *rest])
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
