"""Which labelers agree with the others, and which answer as if they did not read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from heedful.feedback.consensus import latest, settle
from heedful.records import Judgement, LabelerQuality

MIN_PROMPTS = 8  # with fewer, not even a labeler who is always wrong could be told from chance after correction
LEVEL = 0.05


def kendall_s(first: Sequence[int], second: Sequence[int]) -> int:
    """Concordant minus discordant pairs of two rank vectors; a pair tied in either counts 0."""
    return sum(_sign(first[i] - first[j]) * _sign(second[i] - second[j]) for i, j in combinations(range(len(first)), 2))


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def kendall_variance(first: Sequence[int], second: Sequence[int]) -> float:
    """Variance of S when one vector is shuffled at random; n(n-1)(2n+5)/18 without ties (Kendall 1970, section 4.4)."""
    n = len(first)
    t, u = list(Counter(first).values()), list(Counter(second).values())

    def five(groups: Iterable[int]) -> float:
        return sum(k * (k - 1) * (2 * k + 5) for k in groups)

    def three(groups: Iterable[int]) -> float:
        return sum(k * (k - 1) * (k - 2) for k in groups)

    def two(groups: Iterable[int]) -> float:
        return sum(k * (k - 1) for k in groups)

    if n < 2:
        return 0.0
    variance = (five([n]) - five(t) - five(u)) / 18 + two(t) * two(u) / (2 * n * (n - 1))
    if n > 2:
        variance += three(t) * three(u) / (9 * n * (n - 1) * (n - 2))
    return variance


def tau(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Kendall's tau-b of two rank vectors, -1 to 1; None where one of them is all ties."""
    pairs = list(combinations(range(len(first)), 2))
    decided = [sum(vector[i] != vector[j] for i, j in pairs) for vector in (first, second)]
    if 0 in decided:
        return None
    return float(kendall_s(first, second) / (decided[0] * decided[1]) ** 0.5)


def labeler_quality(judgements: Iterable[Judgement], weights: Mapping[str, float] | None = None) -> list[LabelerQuality]:
    """Leave-one-out quality of each labeler, sorted by name.

    Each ranking is held against the consensus of the *other* labelers of that prompt. Two tests come of it. z: Kendall's S
    summed over prompts against clicking at random (mean 0). p: whether the labeler agrees less with the rest than the other
    labelers do, prompt by prompt, by a one-sided sign-flip permutation of the paired differences of tau; it needs no model of
    how skill is spread, and a careless labeler who drags everybody's consensus down does not make the careful ones look bad.
    q is p after Benjamini-Hochberg; suspect is q < 0.05. A person decides what follows from it.
    """
    by_prompt = latest(judgements)
    taus: dict[str, dict[str, float]] = defaultdict(dict)
    s_sum: Counter[str] = Counter()
    s_variance: dict[str, float] = defaultdict(float)
    right: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    made: Counter[str] = Counter()
    for prompt_id, found in by_prompt.items():
        for own in found:
            made[own.labeler] += 1
            others = [judgement for judgement in found if judgement is not own]
            if not others:
                continue
            ranks = settle(prompt_id, others, weights or {}).ranks
            shared = sorted(set(ranks) & set(own.ranks))
            first, second = [own.ranks[id_] for id_ in shared], [ranks[id_] for id_ in shared]
            s_sum[own.labeler] += kendall_s(first, second)
            s_variance[own.labeler] += kendall_variance(first, second)
            for i, j in combinations(range(len(shared)), 2):
                agreement = _sign(first[i] - first[j]) * _sign(second[i] - second[j])
                decided[own.labeler] += agreement != 0
                right[own.labeler] += agreement > 0
            value = tau(first, second)
            if value is not None:
                taus[own.labeler][prompt_id] = value
    names = sorted(made)
    p_values = {name: _worse_than_others(name, taus) for name in names}
    tested = [name for name in names if p_values[name] is not None]
    corrected = stats.false_discovery_control([p_values[name] for name in tested]) if tested else []
    q_values = dict(zip(tested, (float(q) for q in corrected), strict=True))
    quality = []
    for name in names:
        z = s_sum[name] / s_variance[name] ** 0.5 if s_variance[name] > 0 else None
        suspect = q_values.get(name, 1.0) < LEVEL
        quality.append(
            LabelerQuality(
                labeler=name,
                num_judgements=made[name],
                agreement=right[name] / decided[name] if decided[name] else None,
                reliability=max(0.0, float(np.mean(list(taus[name].values())))) if taus[name] else 0.0,
                z=z,
                p=p_values[name],
                q=q_values.get(name),
                suspect=suspect,
                verdict=_verdict(p_values[name], suspect, z),
            )
        )
    return quality


def _worse_than_others(name: str, taus: Mapping[str, Mapping[str, float]]) -> float | None:
    """One-sided p that this labeler's tau is below the mean of the others' on the same prompts; None for too few."""
    differences = []
    for prompt_id, own in taus[name].items():
        rest = [taus[other][prompt_id] for other in taus if other != name and prompt_id in taus[other]]
        if len(rest) > 1:  # of two labelers neither is the odd one
            differences.append(own - float(np.mean(rest)))
    if len(differences) < MIN_PROMPTS:
        return None
    if not any(differences):
        return 1.0
    found = stats.permutation_test(
        (np.array(differences), np.zeros(len(differences))),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9_999,
        alternative="less",
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _verdict(p: float | None, suspect: bool, z: float | None) -> str:
    if p is None:
        return "too few to tell"
    if not suspect:
        return "agrees with the others"
    return "answers like random clicks" if z is None or stats.norm.sf(z) > LEVEL else "agrees less than the others"


def agreement(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """Numbers over all labelers: Krippendorff's alpha on ranks with a bootstrap interval, mean pairwise tau, counts."""
    by_prompt = latest(judgements)
    found = [judgement for rows in by_prompt.values() for judgement in rows]
    pairwise = []
    for rows in by_prompt.values():
        for a, b in combinations(rows, 2):
            shared = sorted(set(a.ranks) & set(b.ranks))
            value = tau([a.ranks[id_] for id_ in shared], [b.ranks[id_] for id_ in shared])
            if value is not None:
                pairwise.append(value)
    ranked_pairs = [(a, b) for j in found for a, b in combinations(j.ranks.values(), 2)]
    return {
        "num_prompts": len(by_prompt),
        "num_labelers": len({judgement.labeler for judgement in found}),
        "num_judgements": len(found),
        "num_flags": sum(len(judgement.flagged) for judgement in found),
        "tied_share": sum(a == b for a, b in ranked_pairs) / len(ranked_pairs) if ranked_pairs else 0.0,
        "mean_pairwise_tau": float(np.mean(pairwise)) if pairwise else None,
        **_alpha(by_prompt),
    }


def _alpha(by_prompt: Mapping[str, Sequence[Judgement]]) -> dict[str, float | None]:
    import evalica
    import pandas as pd

    rows = []
    for judgements in by_prompt.values():
        for judgement in judgements:
            # Over pairs of completions: 1, 0 or -1 for each, so that prompts with other completions can be joined.
            for a, b in combinations(sorted(judgement.ranks), 2):
                order = _sign(judgement.ranks[b] - judgement.ranks[a])
                rows.append({"unit": f"{a}|{b}", "labeler": judgement.labeler, "value": order})
    none: dict[str, float | None] = {
        "krippendorff_alpha": None,
        "krippendorff_alpha_low": None,
        "krippendorff_alpha_high": None,
    }
    frame = pd.DataFrame(rows)
    if frame.empty or frame["labeler"].nunique() < 2 or frame["value"].nunique() < 2:
        return none
    table = frame.pivot_table(index="labeler", columns="unit", values="value", aggfunc="first")
    found = evalica.alpha_bootstrap(table, distance="ordinal", n_resamples=1000, random_state=0)
    return {
        "krippendorff_alpha": float(found.alpha),
        "krippendorff_alpha_low": float(found.low),
        "krippendorff_alpha_high": float(found.high),
    }
