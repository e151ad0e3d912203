"""Accuracy, F1 and AUC of a two-class classifier: by hand, and against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from heedful.errors import DataError
from heedful.evaluation.classification import auc, classification, f1


def test_by_hand() -> None:
    # Above 0: the first three. Two of them are wanted, one wanted text lies below: TP 2, FP 1, FN 1, TN 1.
    found = classification([3, 2, 1, -1, -2], [True, False, True, True, False], threshold=0, num_resamples=100, seed=0)
    assert found["accuracy"]["estimate"] == 3 / 5
    assert found["f1"]["estimate"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    # Of the 3 * 2 pairs of a wanted and another text, 3 beats 2 and -2, 1 and -1 beat -2: 4 of 6.
    assert found["auc"]["estimate"] == pytest.approx(4 / 6)
    assert found["majority_class"] == 3 / 5
    assert found["num_texts"] == 5
    for name in ("accuracy", "f1", "auc"):
        assert found[name]["low"] <= found[name]["estimate"] <= found[name]["high"]


def test_equal_to_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.random(50) < 0.3
        truth[:2] = (True, False)
        scores = np.round(rng.normal(size=50) + truth, 1)
        assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
        assert f1(scores > 0, truth) == pytest.approx(f1_score(truth, scores > 0))


def test_one_class_has_no_auc() -> None:
    with pytest.raises(DataError, match="all of one class"):
        classification([1.0, 2.0], [True, True], threshold=0, num_resamples=10, seed=0)


def test_nothing_called_wanted_is_no_f1() -> None:
    assert f1(np.zeros(3, dtype=bool), np.array([True, False, False])) == 0.0
