"""Intervals: every figure that a run claims goes through here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from heedful.errors import DataError


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval; low and high are None when one cluster leaves nothing to estimate it from."""

    estimate: float
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


def wilson(successes: int, total: int) -> Interval:
    """A rate with Wilson's score interval. Raises DataError for no trials: 0 of 0 is not 0%."""
    if total == 0:
        raise DataError("a rate of nothing: there was not one case to count")
    interval = stats.binomtest(successes, total).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(successes / total, float(interval.low), float(interval.high))


def cluster_means(values: Sequence[float], clusters: Sequence[str]) -> dict[str, float]:
    """Mean of each cluster's values, in order of first appearance."""
    gathered: dict[str, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        gathered[cluster].append(value)
    return {cluster: float(np.mean(found)) for cluster, found in gathered.items()}


def unseen_share(num_clusters: int) -> float:
    """The largest share of clusters that may differ although none of `num_clusters` did (Clopper and Pearson 1934, 95%)."""
    return float(1 - 0.025 ** (1 / num_clusters))


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[str],
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    within: tuple[float, float] | None = None,
) -> Interval:
    """Mean over clusters (prompts), each weighing the same, with a percentile bootstrap over clusters.

    within: the least and the greatest value there can be, (0, 1) for a rate. Where all clusters came out alike a bootstrap sees
    no variation; then the interval reaches to what one gets if `unseen_share` of them were at the least or the greatest.
    """
    if not values:
        raise DataError("a mean of nothing: there was not one value")
    means = np.array(list(cluster_means(values, clusters).values()))
    centre = float(means.mean())
    if len(means) < 2:
        return Interval(centre, None, None)
    if np.ptp(means) == 0:
        share = unseen_share(len(means)) if within else 0.0
        low, high = within or (centre, centre)
        return Interval(centre, centre + share * (low - centre), centre + share * (high - centre))
    found = stats.bootstrap(
        (means,), np.mean, n_resamples=num_resamples, method="percentile", rng=np.random.default_rng(seed), batch=1000
    ).confidence_interval
    return Interval(centre, float(found.low), float(found.high))


def paired_difference(
    before: Sequence[float],
    after: Sequence[float],
    before_clusters: Sequence[str],
    after_clusters: Sequence[str],
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    within: tuple[float, float] | None = None,
) -> Interval:
    """Mean of after - before, paired by cluster (prompt), with a bootstrap over clusters.

    within: as in `mean_interval`, for the differences: (-1, 1) for a rate.
    Raises DataError unless both sides hold the same clusters: an answer missing on one side must not go unseen.
    """
    first, second = cluster_means(before, before_clusters), cluster_means(after, after_clusters)
    if set(first) != set(second):
        odd = sorted(set(first) ^ set(second))[0]
        raise DataError(f"prompt {odd!r} has an answer on one side only; evaluate both models on the same prompts")
    differences = [second[cluster] - first[cluster] for cluster in first]
    return mean_interval(differences, list(first), num_resamples=num_resamples, seed=seed, within=within)


def pooled_interval(
    values: Sequence[float],
    clusters: Sequence[str],
    *,
    within: tuple[float, float],
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean over all values, each weighing the same, with a percentile bootstrap over clusters.

    within: as in `mean_interval`.
    """
    gathered: dict[str, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        gathered[cluster].append(value)
    if not gathered:
        raise DataError("a mean of nothing: there was not one value")
    sums = np.array([sum(found) for found in gathered.values()])
    counts = np.array([len(found) for found in gathered.values()], dtype=float)
    if len(sums) < 2 or np.ptp(np.asarray(values)) == 0:
        return mean_interval(values, clusters, within=within)
    found = stats.bootstrap(
        (sums, counts),
        lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
        paired=True,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
        batch=1000,
    ).confidence_interval
    return Interval(float(sums.sum() / counts.sum()), float(found.low), float(found.high))
