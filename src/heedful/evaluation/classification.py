"""How well a two-class classifier does on texts it has not seen: accuracy, F1 and area under the ROC curve, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from heedful.errors import DataError
from heedful.evaluation.statistics import Interval, wilson


def classification(
    scores: Sequence[float], wanted: Sequence[bool], *, threshold: float, num_resamples: int, seed: int
) -> dict[str, Any]:
    """Accuracy with Wilson's interval; F1 of the wanted class and AUC with percentile bootstraps over texts; the baseline.

    scores: higher means more likely wanted; above the threshold the text is called wanted. Raises DataError unless both classes
    occur. Resamples in which one class is missing have no AUC and are drawn again.
    """
    found, truth = np.asarray(scores, dtype=np.float64), np.asarray(wanted, dtype=bool)
    if truth.all() or not truth.any():
        raise DataError("the texts to measure on are all of one class; give more texts, or another share of held-out ones")
    called = found > threshold
    rng = np.random.default_rng(seed)
    f1s: list[float] = []
    aucs: list[float] = []
    while len(aucs) < num_resamples:
        rows = rng.integers(0, len(truth), len(truth))
        if truth[rows].any() and not truth[rows].all():
            f1s.append(f1(called[rows], truth[rows]))
            aucs.append(auc(found[rows], truth[rows]))
    majority = max(truth.mean(), 1 - truth.mean())
    return {
        "num_texts": len(truth),
        "accuracy": wilson(int((called == truth).sum()), len(truth)).as_dict(),
        "f1": _interval(f1(called, truth), f1s).as_dict(),
        "auc": _interval(auc(found, truth), aucs).as_dict(),
        "majority_class": float(majority),
    }


def f1(called: np.ndarray, truth: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN); 0 when nothing is wanted and nothing called so."""
    hits, wrong = float((called & truth).sum()), float((called != truth).sum())
    return 2 * hits / (2 * hits + wrong) if hits + wrong else 0.0


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Probability that a wanted text scores above one that is not, ties counting a half (Mann and Whitney 1947)."""
    ranks = stats.rankdata(scores)
    positives = int(truth.sum())
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * (len(truth) - positives)))


def _interval(estimate: float, resampled: Sequence[float]) -> Interval:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(estimate, float(low), float(high))
