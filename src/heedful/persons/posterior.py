"""Each person's weights given the heads: the most probable ones, and how sure they are. All persons at once.

    reward of text t for person u    r_u(t) = g(t) + z_u . h(t)            g: the global head, h: K heads of what differs
    label                            P(y = 1) = sigma(r_u(t)),  of a pair sigma(r_u(a) - r_u(b))  (Bradley and Terry 1952)
    prior                            z_u ~ N(0, I): no label, no difference from the global model
    posterior                        Laplace: N(z*, A^-1), A = I + sum_n p_n (1 - p_n) h_n h_n^T at z*  (MacKay 1992)

Weights with a floor (safety) are kept at or above it by projected Newton steps (Bertsekas, SIAM J. Control and Optimization
20, 1982); one that lies on its floor is certain, and the others' covariance is what is left with it held there.
"""

# P persons, N labels, K weights a person

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import expit

from heedful.persons.labels import Array

MAX_STEPS = 100
TOLERANCE = 1e-9  # of the projected gradient, whose scale is one label
HALVINGS = 40
SUFFICIENT = 1e-4  # Armijo's share of the predicted fall


@dataclass(frozen=True)
class Posterior:
    """Weights of P persons: means (P, K) and covariances (P, K, K) of Laplace's approximation."""

    mean_PK: Array
    covariance_PKK: Array


def prior(num_persons: int, num_weights: int) -> Posterior:
    """What is known of a person who said nothing."""
    return Posterior(np.zeros((num_persons, num_weights)), np.tile(np.eye(num_weights), (num_persons, 1, 1)))


def infer(heads_NK: Array, offset_N: Array, value_N: Array, owners_PN: sparse.csr_matrix, floor_K: Array) -> Posterior:
    """Laplace posteriors of all persons.

    heads_NK, offset_N: h and g of each label (of a pair: differences). value_N: 0 to 1. owners_PN sums labels by person.
    floor_K: least value of each weight, -inf for none; where the prior's mean 0 lies below, it is an error of ours.
    """
    assert np.all(floor_K <= 0), "a floor above the population's weight"
    num_persons, k = owners_PN.shape[0], heads_NK.shape[1]
    found = prior(num_persons, k)
    if k == 0 or len(value_N) == 0:
        return found
    person_N = np.asarray(owners_PN.tocsc().indices)
    outer_NKK = (heads_NK[:, :, None] * heads_NK[:, None, :]).reshape(len(value_N), k * k)
    z_PK = found.mean_PK.copy()

    def losses(z_PK: Array) -> tuple[Array, Array]:
        logit_N = offset_N + np.einsum("nk,nk->n", heads_NK, z_PK[person_N])
        costs_N = np.logaddexp(0, logit_N) - value_N * logit_N
        return owners_PN @ costs_N + 0.5 * np.sum(z_PK**2, axis=1), logit_N

    loss_P, logit_N = losses(z_PK)
    for _ in range(MAX_STEPS):
        p_N = expit(logit_N)
        gradient_PK = z_PK + owners_PN @ (heads_NK * (p_N - value_N)[:, None])
        held_PK = (z_PK <= floor_K) & (gradient_PK > 0)
        if np.max(np.abs(np.where(held_PK, 0, gradient_PK))) < TOLERANCE:
            break
        hessian_PKK = _hessian(outer_NKK, p_N, owners_PN, held_PK)
        step_PK = np.linalg.solve(hessian_PKK, np.where(held_PK, 0, gradient_PK)[:, :, None])[:, :, 0]
        length_P = np.ones(num_persons)
        for _ in range(HALVINGS):
            tried_PK = np.maximum(z_PK - length_P[:, None] * step_PK, floor_K)
            tried_P, tried_N = losses(tried_PK)
            fall_P = SUFFICIENT * np.sum(gradient_PK * (z_PK - tried_PK), axis=1)
            worse_P = tried_P > loss_P - fall_P + 1e-12 * np.abs(loss_P)
            if not worse_P.any():
                break
            length_P[worse_P] /= 2
        z_PK, loss_P, logit_N = tried_PK, tried_P, tried_N
    p_N = expit(logit_N)
    gradient_PK = z_PK + owners_PN @ (heads_NK * (p_N - value_N)[:, None])
    held_PK = (z_PK <= floor_K) & (gradient_PK > 0)
    covariance_PKK = np.linalg.inv(_hessian(outer_NKK, p_N, owners_PN, held_PK))
    covariance_PKK *= ~held_PK[:, :, None] & ~held_PK[:, None, :]
    return Posterior(z_PK, (covariance_PKK + covariance_PKK.transpose(0, 2, 1)) / 2)


def _hessian(outer_NKK: Array, p_N: Array, owners_PN: sparse.csr_matrix, held_PK: Array) -> Array:
    """A of each person (P, K, K); rows and columns of held weights are those of the identity."""
    k = held_PK.shape[1]
    found = (owners_PN @ (outer_NKK * (p_N * (1 - p_N))[:, None])).reshape(-1, k, k) + np.eye(k)
    free_PKK = ~held_PK[:, :, None] & ~held_PK[:, None, :]
    return np.asarray(np.where(free_PKK, found, np.eye(k)))


def moments(posterior: Posterior, person_N: Array, heads_NK: Array, offset_N: Array) -> tuple[Array, Array]:
    """Mean and variance of the reward (of a pair: of the difference) that a person's weights give, (N,) each."""
    mean_N = offset_N + np.einsum("nk,nk->n", heads_NK, posterior.mean_PK[person_N])
    spread_NK = np.einsum("nkl,nl->nk", posterior.covariance_PKK[person_N], heads_NK)
    return mean_N, np.maximum(0.0, np.einsum("nk,nk->n", heads_NK, spread_NK))


def probability(mean_N: Array, variance_N: Array) -> Array:
    """P(y = 1) with the weights integrated out: sigma(mean / sqrt(1 + pi variance / 8)) (MacKay 1992b, eq. 10)."""
    return np.asarray(expit(mean_N / np.sqrt(1 + np.pi * variance_N / 8)))
