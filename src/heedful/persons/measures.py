"""How well a personal model foretells what its persons say, beside the global one: log-loss, accuracy, AUC, with intervals.

Each person weighs the same, and intervals are bootstraps over persons: labels of one person are no independent cases.
"""

# N labels, P persons

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from heedful.errors import DataError
from heedful.evaluation.statistics import mean_interval, paired_difference
from heedful.persons.labels import Array, Labels

CLOSEST = 1e-12


def log_losses(probability_N: Array, value_N: Array) -> Array:
    """-y log p - (1 - y) log(1 - p) of each label, nats."""
    p = np.clip(probability_N, CLOSEST, 1 - CLOSEST)
    return np.asarray(-value_N * np.log(p) - (1 - value_N) * np.log1p(-p))


def by_person(labels: Labels, probability_N: Array) -> dict[str, dict[str, float]]:
    """Of each measure a value for each person: log_loss, accuracy (of labels that are no ties), auc (of persons with both
    answers).

    accuracy: 1 where p is on the label's side of 1/2, 1/2 where p is 1/2. auc: that a label of 1 has the greater p than one of
    0, both of the same person; of votes and pairs alike (a pair's sides are turned so that both answers occur).
    """
    found: dict[str, dict[str, float]] = {"log_loss": {}, "accuracy": {}, "auc": {}}
    losses_N = log_losses(probability_N, labels.value_N)
    for place in np.unique(labels.person_N):
        mine = labels.person_N == place
        name = labels.persons[place]
        value, p = labels.value_N[mine], probability_N[mine]
        found["log_loss"][name] = float(losses_N[mine].mean())
        decided = value != 0.5
        if decided.any():
            right = np.where(p == 0.5, 0.5, (p > 0.5) == (value > 0.5))
            found["accuracy"][name] = float(right[decided].mean())
        if len(np.unique(value[decided] > 0.5)) == 2:
            found["auc"][name] = auc(value[decided] > 0.5, p[decided])
    return found


def auc(right_N: Array, p_N: Array) -> float:
    """Probability that one of the True has a greater p than one of the False, ties half (Mann and Whitney 1947)."""
    num_right = int(right_N.sum())
    above = float(rankdata(p_N)[right_N].sum()) - num_right * (num_right + 1) / 2
    return above / (num_right * (len(p_N) - num_right))


def compare(
    before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]], *, num_resamples: int = 2_000
) -> dict[str, Any]:
    """For each measure both means and the mean paired difference after - before, each with its 95% interval over persons."""
    result: dict[str, Any] = {}
    for measure in before:
        persons = sorted(set(before[measure]) & set(after[measure]))
        if not persons:
            continue
        first, second = ([found[measure][name] for name in persons] for found in (before, after))
        result[measure] = {
            "num_persons": len(persons),
            "before": mean_interval(first, persons, num_resamples=num_resamples).as_dict(),
            "after": mean_interval(second, persons, num_resamples=num_resamples).as_dict(),
            "difference": paired_difference(first, second, persons, persons, num_resamples=num_resamples).as_dict(),
        }
    if not result:
        raise DataError("no person has a label to measure on; hide a smaller share, or give more labels")
    return result


def hide(labels: Labels, share: float, seed: int, *, among: Array | None = None) -> Array:
    """True on labels that are hidden, (N,): of each person this share, drawn at random. among: places of persons, or all."""
    chance = np.random.default_rng(seed)
    hidden_N = np.zeros(len(labels), dtype=bool)
    for place in range(len(labels.persons)) if among is None else among:
        mine = chance.permutation(np.flatnonzero(labels.person_N == place))
        hidden_N[mine[: round(share * len(mine))]] = True
    return hidden_N
