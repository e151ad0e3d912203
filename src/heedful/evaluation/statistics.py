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


def mean_interval(values: Sequence[float], clusters: Sequence[str], *, num_resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean over clusters (prompts), each weighing the same, with a percentile bootstrap over clusters."""
    if not values:
        raise DataError("a mean of nothing: there was not one value")
    means = np.array(list(cluster_means(values, clusters).values()))
    centre = float(means.mean())
    if len(means) < 2:
        return Interval(centre, None, None)
    if np.ptp(means) == 0:
        return Interval(centre, centre, centre)
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
) -> Interval:
    """Mean of after - before, paired by cluster (prompt), with a bootstrap over clusters.

    Raises DataError unless both sides hold the same clusters: an answer missing on one side must not go unseen.
    """
    first, second = cluster_means(before, before_clusters), cluster_means(after, after_clusters)
    if set(first) != set(second):
        odd = sorted(set(first) ^ set(second))[0]
        raise DataError(f"prompt {odd!r} has an answer on one side only; evaluate both models on the same prompts")
    differences = [second[cluster] - first[cluster] for cluster in first]
    return mean_interval(differences, list(first), num_resamples=num_resamples, seed=seed)
