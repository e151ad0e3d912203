"""Each person's weights: against a slow optimiser and exact integrals, and what follows from no labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize, sparse
from scipy.special import expit

from heedful.persons.posterior import Posterior, infer, moments, prior, probability

NONE = np.full(3, -np.inf)


def data(seed: int = 0, num_persons: int = 6, per_person: int = 9, k: int = 3) -> tuple[np.ndarray, ...]:
    """Heads, offsets, labels (some soft) and persons."""
    chance = np.random.default_rng(seed)
    n = num_persons * per_person
    person_N = np.repeat(np.arange(num_persons), per_person)
    heads_NK, offset_N = chance.standard_normal((n, k)) * 2, chance.standard_normal(n)
    value_N = chance.choice([0.0, 1.0, 0.5, 0.8], n)
    owner_PN = sparse.csr_matrix((np.ones(n), (person_N, np.arange(n))), shape=(num_persons + 1, n))
    return heads_NK, offset_N, value_N, person_N, owner_PN


def loss(z: np.ndarray, h: np.ndarray, g: np.ndarray, y: np.ndarray) -> float:
    """The negative log posterior of one person, written out label by label."""
    total = float(z @ z) / 2
    for row, offset, value in zip(h, g, y, strict=True):
        p = expit(offset + row @ z)
        total -= value * np.log(p) + (1 - value) * np.log(1 - p)
    return float(total)


@pytest.mark.parametrize("floor", [None, -0.2])
def test_most_probable_weights_are_those_of_a_slow_optimiser(floor: float | None) -> None:
    heads_NK, offset_N, value_N, person_N, owner_PN = data()
    floor_K = NONE.copy()
    if floor is not None:
        floor_K[2] = floor
    found = infer(heads_NK, offset_N, value_N, owner_PN, floor_K)
    held = 0
    for person in range(6):
        mine = person_N == person
        bounds = [(None, None), (None, None), (floor, None)]
        slow = optimize.minimize(
            loss, np.zeros(3), (heads_NK[mine], offset_N[mine], value_N[mine]), "L-BFGS-B", bounds=bounds, tol=1e-12
        ).x
        assert found.mean_PK[person] == pytest.approx(slow, abs=2e-4)
        held += floor is not None and slow[2] == floor
    assert (floor is None) == (held == 0), "with a floor somebody should lie on it"


def test_covariance_is_the_inverse_of_a_numerical_hessian() -> None:
    heads_NK, offset_N, value_N, person_N, owner_PN = data()
    found = infer(heads_NK, offset_N, value_N, owner_PN, NONE)
    mine, step = person_N == 2, 1e-4
    arguments = (heads_NK[mine], offset_N[mine], value_N[mine])
    hessian = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            a, b = np.eye(3)[i] * step, np.eye(3)[j] * step
            at = found.mean_PK[2]
            hessian[i, j] = (
                loss(at + a + b, *arguments) - loss(at + a - b, *arguments) - loss(at - a + b, *arguments)
                + loss(at - a - b, *arguments)
            ) / (4 * step**2)  # fmt: skip
    assert found.covariance_PKK[2] == pytest.approx(np.linalg.inv(hessian), abs=1e-4)


def test_no_labels_leave_the_population_exactly() -> None:
    heads_NK, offset_N, value_N, _, owner_PN = data()
    found = infer(heads_NK, offset_N, value_N, owner_PN, NONE)  # the seventh person has no label
    assert (found.mean_PK[6] == 0).all()
    assert (found.covariance_PKK[6] == np.eye(3)).all()


def test_a_weight_on_its_floor_is_certain_and_the_others_are_not() -> None:
    heads_NK, offset_N = np.array([[1.0, 3.0]] * 8), np.zeros(8)
    owner_PN = sparse.csr_matrix(np.ones((1, 8)))
    found = infer(heads_NK, offset_N, np.zeros(8), owner_PN, np.array([-np.inf, 0.0]))
    assert found.mean_PK[0, 1] == 0
    assert found.mean_PK[0, 0] < -1
    assert (found.covariance_PKK[0, 1] == 0).all()
    assert 0 < found.covariance_PKK[0, 0, 0] < 1


def test_more_labels_make_surer() -> None:
    heads_NK, offset_N, value_N, _, owner_PN = data()
    some = infer(heads_NK, offset_N, value_N, owner_PN, NONE)
    twice = (np.concatenate([x, x]) for x in (heads_NK, offset_N, value_N))
    more = infer(*twice, sparse.hstack([owner_PN, owner_PN]).tocsr(), NONE)
    assert (np.linalg.det(more.covariance_PKK[:6]) < np.linalg.det(some.covariance_PKK[:6])).all()


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (1.0, 0.5), (-2.0, 2.0), (3.0, 1.5)])
def test_probability_is_near_the_integral(mean: float, sd: float) -> None:
    exact = integrate.quad(lambda z: expit(mean + sd * z) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), -12, 12)[0]
    (near,) = probability(np.array([mean]), np.array([sd**2]))
    assert near == pytest.approx(exact, abs=0.02)  # MacKay's approximation, whose error is of this size


def test_moments_are_those_of_drawn_weights() -> None:
    heads_NK, offset_N, value_N, person_N, owner_PN = data()
    found = infer(heads_NK, offset_N, value_N, owner_PN, NONE)
    mean_N, variance_N = moments(found, person_N, heads_NK, offset_N)
    drawn = np.random.default_rng(0).multivariate_normal(found.mean_PK[1], found.covariance_PKK[1], 40_000)
    rewards = offset_N[9] + drawn @ heads_NK[9]
    assert rewards.mean() == pytest.approx(mean_N[9], abs=4 * np.sqrt(variance_N[9] / 40_000))
    assert rewards.var() == pytest.approx(variance_N[9], rel=0.05)
    empty = prior(2, 0)
    assert isinstance(empty, Posterior)
    assert moments(empty, np.zeros(3, dtype=int), np.zeros((3, 0)), np.arange(3.0))[1].tolist() == [0, 0, 0]
