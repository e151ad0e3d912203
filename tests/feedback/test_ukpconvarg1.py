"""Consensus on real votes: 58,843 of 3,759 people on which of two arguments is the more convincing (UKPConvArg1)."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heedful.feedback.bradley_terry import DIFFERENCE_N, WEIGHT_N, Comparisons, fit, settle, vote_probabilities
from heedful.feedback.clickers import random_clickers

NUM_VOTES, NUM_PAIRS, NUM_GOLD = 58_843, 11_796, 11_216
SEEDS = range(5)
OUTCOMES = np.array([1, 0, -1])


@dataclass(frozen=True)
class Real:
    """gold_P: of votes.pairs, 1, 0 or -1 as outcomes; clear_P: where the publishers' model was sure of it."""

    votes: Comparisons
    gold_P: np.ndarray[Any, Any]
    clear_P: np.ndarray[Any, Any]

    def agreement(self, outcome_P: np.ndarray[Any, Any]) -> float:
        """Share of the pairs with clear gold on which the outcome is the same one of three."""
        return float((outcome_P == self.gold_P)[self.clear_P].mean())


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Real:
    with gzip.open(shared_data / "ukpconvarg1" / "votes.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    items = {name: k for k, name in enumerate(sorted({row[side] for row in rows for side in "ab"}))}
    people = {name: k for k, name in enumerate(sorted({row["labeler"] for row in rows}))}
    outcome = {"a1": 1, "equal": 0, "a2": -1}
    columns = [(items[row["a"]], items[row["b"]], people[row["labeler"]], outcome[row["value"]]) for row in rows]
    a, b, labeler, value = np.array(columns).T
    votes = Comparisons(a, b, labeler, value, len(items), len(people))
    a_P, _, pair_C, _ = votes.pairs
    gold_P, clear_P = np.zeros((2, len(a_P)), dtype=int)
    for pair, first, row in zip(pair_C, a, rows, strict=True):
        if row["gold"] is not None:
            clear_P[pair], gold_P[pair] = 1, outcome[row["gold"]] * (1 if first == a_P[pair] else -1)
    assert (len(value), len(a_P), int(clear_P.sum())) == (NUM_VOTES, NUM_PAIRS, NUM_GOLD)
    return Real(votes, gold_P, clear_P.astype(bool))


def table(real: Real) -> Any:
    """The votes as crowd-kit takes them: the pairs its tasks, the outcomes its classes."""
    import pandas as pd

    _, _, pair_C, outcome_C = real.votes.pairs
    return pd.DataFrame({"task": pair_C, "worker": real.votes.labeler_C, "label": outcome_C})


def majorities(real: Real) -> dict[str, float]:
    """Agreement of the plain majority with gold, for the 16% of pairs where votes are tied by four rules."""
    from crowdkit.aggregation import MajorityVote

    _, _, pair_C, outcome_C = real.votes.pairs
    counts_P3 = np.stack([np.bincount(pair_C, outcome_C == z, NUM_PAIRS) for z in OUTCOMES], axis=1)
    best_P3 = counts_P3 == counts_P3.max(axis=1, keepdims=True)
    lean_P, tied_P = np.sign(counts_P3[:, 0] - counts_P3[:, 2]), best_P3.sum(axis=1) > 1
    clear_P3 = best_P3[real.clear_P]
    by_lot = clear_P3[np.arange(NUM_GOLD), 1 - real.gold_P[real.clear_P]] / clear_P3.sum(axis=1)
    crowd_kit = MajorityVote().fit_predict(table(real)).sort_index().to_numpy()
    return {
        "level where level ties": real.agreement(np.where(best_P3[:, 1], 0, lean_P)),
        "never level where votes tie": real.agreement(np.where(best_P3[:, 1] & ~tied_P, 0, lean_P)),
        "one of the tied by lot, expected": float(by_lot.mean()),
        "crowd-kit": real.agreement(crowd_kit),
    }


def test_agrees_with_gold_more_often_than_majority_and_dawid_skene(real: Real) -> None:
    """Gold is what MACE made of these same votes, so agreement measures settling a pair from its own votes."""
    from crowdkit.aggregation import DawidSkene

    _, outcome_P = settle(fit(real.votes), real.votes)
    ours = real.agreement(outcome_P)
    dawid_skene = real.agreement(DawidSkene(n_iter=100).fit_predict(table(real)).sort_index().to_numpy())
    majority = majorities(real)
    assert ours > max(majority.values()), majority
    assert ours > dawid_skene
    assert ours > 0.9


def test_scores_alone_order_clear_pairs_as_gold_does(real: Real) -> None:
    """Even when a tenth of the people click at random, which costs less than a point."""
    model = fit(real.votes)
    a_P, b_P, _, _ = real.votes.pairs
    decided = real.clear_P & (real.gold_P != 0)
    agree = [float((np.sign(model.difference(a_P, b_P)[0]) == real.gold_P)[decided].mean())]
    for seed in SEEDS[:2]:
        model = fit(with_clickers(real, seed)[0])
        agree.append(float((np.sign(model.difference(a_P, b_P)[0]) == real.gold_P)[decided].mean()))
    assert agree[0] > 0.88
    assert min(agree) > agree[0] - 0.01


def test_forecasts_of_unseen_votes(real: Real) -> None:
    """The log loss that bradley_terry.py gives as its reason, and each part of the model is worth something in it."""
    unseen = np.random.default_rng(0).integers(5, size=NUM_VOTES) == 0
    columns = (real.votes.item_a_C, real.votes.item_b_C, real.votes.labeler_C, real.votes.outcome_C)
    seen = Comparisons(*(column[~unseen] for column in columns), real.votes.num_items, real.votes.num_labelers)  # type: ignore[misc]
    a, b, labeler, outcome = (column[unseen] for column in columns)
    model = fit(seen)
    mean, sd = model.difference(a, b)

    def loss(discrimination: Any, threshold: Any) -> float:
        votes = vote_probabilities(mean[:, None] + sd[:, None] * DIFFERENCE_N, discrimination, threshold)
        return float(-np.log((votes[np.arange(len(a)), :, 1 - outcome] * WEIGHT_N).sum(axis=1)).mean())

    alpha, kappa = model.discriminations_L[labeler][:, None], model.thresholds_L[labeler][:, None]
    ours = loss(alpha, kappa)
    assert ours == pytest.approx(0.826, abs=0.001)
    assert ours < loss(1.0, kappa) - 0.002
    assert ours < loss(alpha, model.threshold) - 0.02
    shares = np.bincount(1 - seen.outcome_C) / len(seen.outcome_C)
    assert ours < float(-np.log(shares[1 - outcome]).mean()) - 0.2


def with_clickers(real: Real, seed: int) -> tuple[Comparisons, np.ndarray[Any, Any]]:
    """All votes of a tenth of the people replaced by one of the three answers at random; and who these are."""
    chance = np.random.default_rng(seed)
    num = real.votes.num_labelers
    clicks_L = np.zeros(num, dtype=bool)
    clicks_L[chance.permutation(num)[: num // 10]] = True
    drawn = chance.integers(-1, 2, NUM_VOTES)
    return replace(real.votes, outcome_C=np.where(clicks_L[real.votes.labeler_C], drawn, real.votes.outcome_C)), clicks_L


def test_random_clickers_are_found(real: Real) -> None:
    """Precision and recall over five draws together, of people with 30 votes or more: some 27 clickers and 240 others a draw.

    Those accused wrongly are the same three people in every draw, whose real votes agree with the others' scores about as well
    as chance would; two of them are accused with nobody's votes replaced.
    """
    hits = accused = clickers = 0
    for seed in SEEDS:
        votes, clicks_L = with_clickers(real, seed)
        listed = random_clickers(votes)
        hits += sum(entry.suspect for entry in listed if clicks_L[entry.labeler])
        accused += sum(entry.suspect for entry in listed)
        clickers += sum(bool(clicks_L[entry.labeler]) for entry in listed)
    assert hits / accused >= 0.9
    assert hits / clickers >= 0.9


def test_of_real_people_hardly_any_is_taken_for_a_clicker(real: Real) -> None:
    listed = random_clickers(real.votes)
    assert len(listed) == 265
    suspects = [entry for entry in listed if entry.suspect]
    assert len(suspects) <= 3
    assert all(abs(entry.z) < 1 for entry in suspects)
