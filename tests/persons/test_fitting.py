"""The heads: what the fit climbs, that it finds wishes again, and that it is one result whatever the order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate
from scipy.special import expit
from simulated_persons import world
from sklearn.linear_model import LogisticRegression

from heedful.errors import DataError
from heedful.persons.basis import Basis, contrasts, scale_of
from heedful.persons.fitting import Settings, fit, fit_global
from heedful.persons.labels import Label, gather
from heedful.persons.measures import by_person
from heedful.persons.model import fit_persons
from heedful.persons.safety import no_safety

PLAIN = Settings(num_heads=2, ridge_heads=1.0, text_scale=0.0)
# The bound is a sum over labels of terms near 1, added up in float64.
ROUNDING = 1e-6


@pytest.mark.parametrize("pairs", [False, True], ids=["votes", "pairs"])
def test_no_round_lowers_the_bound(pairs: bool) -> None:
    found = world(40, 60)
    labels = found.labels(30, pairs=pairs, seed=1)
    phi_TD = scale_of(found.features_TD).apply(found.features_TD)
    nothing, safety = np.zeros((60, 0)), 2 * found.features_TD[:, :1] + found.features_TD[:, 1:2]
    for text_scale, safety_TS in ((0.0, nothing), (0.7, nothing), (0.0, safety), (0.7, safety)):
        settings = replace(PLAIN, text_scale=text_scale)
        bounds = fit(Basis(phi_TD, safety_TS, text_scale), safety_TS, labels, settings).bounds
        assert len(bounds) > 5
        assert np.diff(bounds).min() > -ROUNDING


def test_the_bound_lies_below_the_true_evidence_and_near_it() -> None:
    """One head, one person of five votes: the evidence is an integral over one weight, taken by quadrature."""
    found = world(1, 5, num_features=3, num_directions=1)
    labels = found.labels(5, pairs=False, seed=0)
    phi_TD = scale_of(found.features_TD).apply(found.features_TD)
    nothing = np.zeros((5, 0))
    basis = Basis(phi_TD, nothing, 0.0)
    settings = Settings(num_heads=1, ridge_heads=1.0, text_scale=0.0, num_rounds=30)
    result = fit(basis, nothing, labels, settings)
    # The population's mean is put into the global head at the end: the prior of the weight is N(0, 1) around it.
    g, h = (contrasts(labels) @ basis.heads(result.weights_FC)).T

    def density(z: float) -> float:
        p = expit(g + h * z)
        likelihood = np.prod(np.where(labels.value_N > 0.5, p, 1 - p))
        return float(likelihood * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))

    evidence = np.log(integrate.quad(density, -12, 12)[0])
    assert result.bounds[-1] < evidence
    assert result.bounds[-1] > evidence - 5  # nats; the rest is the penalty of W and what the quadratic bound gives away


@pytest.mark.parametrize("pairs", [False, True], ids=["votes", "pairs"])
def test_wishes_are_found_again(pairs: bool) -> None:
    found = world(80, 100)
    labels, unseen = (found.labels(30, pairs=pairs, seed=seed) for seed in (1, 2))
    model = fit_persons(labels, found.features_TD, no_safety(12), PLAIN)
    nobody = replace(model, persons=())
    own, common = (by_person(unseen, judge.predict(unseen, found.features_TD)) for judge in (model, nobody))
    gain = np.mean(list(common["log_loss"].values())) - np.mean(list(own["log_loss"].values()))
    assert gain > 0.1
    offset_T, heads_TK = model.heads.read(found.features_TD, found.texts)
    reward_PT = offset_T + model.posterior.mean_PK @ heads_TK.T
    centred = [rows - rows.mean(axis=1, keepdims=True) for rows in (reward_PT, found.reward_PT)]
    likeness = [np.corrcoef(mine, true)[0, 1] for mine, true in zip(*centred, strict=True)]
    assert np.mean(likeness) > 0.8


def test_the_prior_stands_at_the_populations_mean() -> None:
    """What all persons share belongs into the global head, however few they are: their weights have mean 0."""
    found = world(12, 60, seed=5)
    labels = found.labels(60, pairs=False, seed=1)
    # A ridge that keeps the global head small would leave it to the weights to say what is common.
    for ridge in (1.0, 100.0):
        model = fit_persons(labels, found.features_TD, no_safety(12), replace(PLAIN, ridge_global=ridge))
        assert np.abs(model.posterior.mean_PK.mean(axis=0)).max() < 0.05, ridge


def test_heads_that_are_not_needed_hardly_speak() -> None:
    """Four asked for, two directions there."""
    found = world(80, 100)
    labels = found.labels(30, pairs=False, seed=1)
    four = fit_persons(labels, found.features_TD, no_safety(12), replace(PLAIN, num_heads=4, ridge_heads=16.0))
    sizes = np.std(four.heads.read(found.features_TD, found.texts)[1], axis=0)
    assert sizes[1] > 2 * sizes[2]


def test_the_global_head_alone_is_ridge_logistic_regression() -> None:
    """Against scikit-learn's, whose penalty spares the intercept; so does ours but for its hundredth."""
    found = world(20, 80)
    labels = found.labels(30, pairs=False, seed=3)
    phi_TD = scale_of(found.features_TD).apply(found.features_TD)
    nothing = np.zeros((80, 0))
    theta_F, _ = fit_global(Basis(phi_TD, nothing, 0.0), nothing, labels, replace(PLAIN, ridge_global=2.0))
    peer = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(phi_TD[labels.first_N], labels.value_N > 0.5)
    assert theta_F[:-1] == pytest.approx(peer.coef_[0], abs=2e-3)
    assert theta_F[-1] == pytest.approx(peer.intercept_[0], abs=2e-3)


def test_a_pair_turned_round_teaches_the_same() -> None:
    found = world(30, 40)
    labels = found.labels(20, pairs=True, seed=4)
    turned = replace(labels, first_N=labels.second_N, second_N=labels.first_N, value_N=1 - labels.value_N)
    models = [fit_persons(each, found.features_TD, no_safety(12), PLAIN) for each in (labels, turned)]
    assert models[0].posterior.mean_PK == pytest.approx(models[1].posterior.mean_PK, abs=1e-6)


def test_the_same_labels_give_the_same_bits_in_whatever_order() -> None:
    found = world(20, 30)
    labels = found.labels(10, pairs=True, seed=5)
    rows = [
        Label(labels.persons[u], labels.texts[a], labels.texts[b], v)
        for u, a, b, v in zip(labels.person_N, labels.first_N, labels.second_N, labels.value_N, strict=True)
    ]
    again = gather(rows)
    first, second = (fit_persons(each, found.features_TD[: len(each.texts)], no_safety(12), PLAIN) for each in (again, again))
    assert (first.heads.weights_FC == second.heads.weights_FC).all()
    assert (first.posterior.mean_PK == second.posterior.mean_PK).all()


def test_more_heads_than_persons_can_be_asked_for() -> None:
    found = world(3, 8)
    labels = found.labels(6, pairs=False, seed=0)
    model = fit_persons(labels, found.features_TD, no_safety(12), Settings(num_heads=6))
    assert np.isfinite(model.posterior.mean_PK).all()
    assert model.posterior.mean_PK.shape == (3, 6)


def test_heads_that_pairs_cannot_tell_stay_out() -> None:
    """Pairs say nothing of the constant, which is what is left for a third head beside two features: it must not explode."""
    found = world(4, 10, num_features=2)
    labels = found.labels(12, pairs=True, seed=0)
    for k in (1, 3, 8):
        phi_TD = scale_of(found.features_TD).apply(found.features_TD)
        nothing = np.zeros((10, 0))
        result = fit(Basis(phi_TD, nothing, 0.0), nothing, labels, replace(PLAIN, num_heads=k))
        assert result.bounds[0] > -10 * len(labels), k
        assert np.abs(result.weights_FC).max() < 20, k


def test_features_that_are_no_numbers_are_refused() -> None:
    found = world(3, 8)
    labels = found.labels(6, pairs=False, seed=0)
    broken = found.features_TD.copy()
    broken[2, 1] = np.nan
    with pytest.raises(DataError, match="finite features of 8 texts"):
        fit_persons(labels, broken, no_safety(12), PLAIN)
    with pytest.raises(DataError, match="no label to learn from"):
        fit_persons(labels.take(np.zeros(len(labels), dtype=bool)), found.features_TD, no_safety(12), PLAIN)
