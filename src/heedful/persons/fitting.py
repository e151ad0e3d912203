"""Finding the heads: a global one, and K of what differs between persons, from all persons' labels.

    f_t W = [g(t), h_1(t), ..., h_K(t)]     W = [theta, V], rows of V times z_u are how person u departs from theta
    prior                                   theta ~ N(0, I / ridge_global), V ~ N(0, I / ridge_heads), z_u ~ N(0, I)

theta and V are found by variational expectation-maximisation on the quadratic bound of the logistic function of Jaakkola and
Jordan (Statistics and Computing 10, 2000, eqs. 6 to 10), a mixed-effects logistic regression of low rank: with
w(x) = tanh(x / 2) / (2 x),

    E   S_u = (I + sum_n w_n h_n h_n^T)^-1,  m_u = S_u sum_n h_n (y_n - 1/2 - w_n g_n),  x_n^2 = E[(g_n + h_n . z_u)^2]
    M   the ridge regression that maximises the expected bound in W, by conjugate gradients

Each step raises the bound (or leaves it), which is kept in `Fit.bounds`. There is no draw of chance anywhere: V begins with
the main directions in which persons' residuals differ from each other.
"""

# P persons, T texts, N labels, F inputs of a head, K heads of what differs, S safety heads, C = 1 + K

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize, sparse
from scipy.sparse.linalg import LinearOperator, svds
from scipy.special import expit, log_expit

from heedful.persons.basis import Basis, contrasts, owners
from heedful.persons.labels import Array, Labels

START_SD = 0.5  # root mean square of a head over the labels at the beginning, in logits
NOTHING = 1e-6  # of the same for a direction of length 1
ENOUGH = 1e-5  # nats a label by which a round must raise the bound to be worth another
SMALLEST = 1e-12
CONSTANT_RIDGE = 0.01  # of theta's constant: how often the answer is yes is no wish to be shrunk


@dataclass(frozen=True)
class Settings:
    """num_heads: K. ridges: inverse prior variances of theta and V. text_scale: tau. safety_sd: prior sd of a person's safety
    weight."""

    num_heads: int = 4
    ridge_global: float = 1.0
    ridge_heads: float = 16.0
    text_scale: float = 0.5
    safety_sd: float = 0.5
    safety_floor: float = 0.5
    num_rounds: int = 40
    num_cg_steps: int = 8


@dataclass(frozen=True)
class Fit:
    """weights_FC: [theta, V]. safety_S: the population's weights of the safety scores. bounds: after each round, nats."""

    weights_FC: Array
    safety_S: Array
    bounds: tuple[float, ...] = field(default=())


def fit_global(basis: Basis, safety_TS: Array, labels: Labels, settings: Settings) -> tuple[Array, Array]:
    """theta (F,) and the population's safety weights (S,), at or above the floor: ridge logistic regression by L-BFGS-B."""
    contrast_NT = contrasts(labels)
    f, s = basis.num_inputs, safety_TS.shape[1]
    safety_NS = contrast_NT @ safety_TS
    ridge_F = np.full(f, settings.ridge_global)
    ridge_F[basis.num_features] = CONSTANT_RIDGE

    def loss(flat: Array) -> tuple[float, Array]:
        theta_F, weight_S = flat[:f], flat[f:]
        logit_N = contrast_NT @ basis.heads(theta_F[:, None])[:, 0] + safety_NS @ weight_S
        pull_N = expit(logit_N) - labels.value_N
        value = np.sum(np.logaddexp(0, logit_N) - labels.value_N * logit_N) + 0.5 * np.sum(ridge_F * theta_F**2)
        gradient_F = basis.gradient(np.asarray(contrast_NT.T @ pull_N)[:, None])[:, 0] + ridge_F * theta_F
        value += 0.5 * settings.ridge_global * np.sum((weight_S - settings.safety_floor) ** 2)
        gradient_S = safety_NS.T @ pull_N + settings.ridge_global * (weight_S - settings.safety_floor)
        return float(value), np.concatenate([gradient_F, gradient_S])

    start = np.concatenate([np.zeros(f), np.full(s, settings.safety_floor)])
    bounds = [(None, None)] * f + [(settings.safety_floor, None)] * s
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}).x
    return found[:f], found[f:]


def fit(
    basis: Basis,
    safety_TS: Array,
    labels: Labels,
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Fit:
    """Heads from all labels. safety_TS: scores of the safety heads, (T, 0) without any."""
    theta_F, safety_S = fit_global(basis, safety_TS, labels, settings)
    if settings.num_heads == 0:
        return Fit(theta_F[:, None], safety_S)
    search = _Search(basis, safety_TS, safety_S, labels, settings)
    weights_FC = np.concatenate([theta_F[:, None], search.start(theta_F)], axis=1)
    bounds: list[float] = []
    for number in range(settings.num_rounds):
        if number:
            weights_FC = search.maximise(weights_FC)
        bounds.append(search.expect(weights_FC, sweeps=1 if number else 3))  # at the beginning nothing is known of x
        progress(number + 1, settings.num_rounds, f"bound {bounds[-1]:.1f} nats")
        if number and bounds[-1] - bounds[-2] < ENOUGH * len(labels):
            break
    weights_FC[:, 0] += weights_FC[:, 1:] @ search.centre_K  # the population's mean is the global head
    return Fit(_in_order(basis, weights_FC), safety_S, tuple(bounds))


class _Search:
    """The labels of a fit, and what is known of persons' weights between two steps."""

    def __init__(self, basis: Basis, safety_TS: Array, safety_S: Array, labels: Labels, settings: Settings) -> None:
        self.basis, self.settings = basis, settings
        self.num_heads = settings.num_heads
        self.contrast_NT, self.owner_PN = contrasts(labels), owners(labels)
        self.person_N, self.kappa_N = labels.person_N, labels.value_N - 0.5
        self.fixed_N = self.contrast_NT @ (safety_TS @ safety_S)
        # The columns of weights that persons have beside those of V; they are given and not learned.
        self.safety_NS = self.contrast_NT @ safety_TS * settings.safety_sd
        self.ridge_FC = np.full((basis.num_inputs, 1 + self.num_heads), settings.ridge_heads)
        self.ridge_FC[:, 0] = settings.ridge_global
        self.ridge_FC[basis.num_features, 0] = CONSTANT_RIDGE
        self.x_N = np.ones(len(labels))
        size = 1 + self.num_heads + safety_TS.shape[1]
        self.centre_K = np.zeros(self.num_heads)  # mean of the persons' weights: where the prior is put
        self.second_PMM = np.tile(np.eye(size), (len(labels.persons), 1, 1))  # E[(1, z)(1, z)^T]

    def start(self, theta_F: Array) -> Array:
        """V (F, K) along the main directions in which persons' residuals under the global head differ."""
        logit_N = self.contrast_NT @ self.basis.heads(theta_F[:, None])[:, 0] + self.fixed_N
        residual_N = self.kappa_N + 0.5 - expit(logit_N)
        weight_P = 1 / np.sqrt(np.maximum(1, np.asarray(self.owner_PN.sum(axis=1)).ravel()))
        pull_PT = sparse.diags(weight_P) @ self.owner_PN @ sparse.diags(residual_N) @ self.contrast_NT
        num_persons, f = pull_PT.shape[0], self.basis.num_inputs
        operator = LinearOperator(
            (num_persons, f),
            matvec=lambda w: pull_PT @ self.basis.heads(np.reshape(w, (f, 1)))[:, 0],
            rmatvec=lambda q: self.basis.gradient(np.asarray(pull_PT.T @ np.reshape(q, -1))[:, None])[:, 0],
            dtype=np.float64,
        )
        k = self.num_heads
        if min(num_persons, f) > 2 * k + 2:
            # From one start, so that the same labels give the same heads.
            _, sizes, right_KF = svds(operator, k=k, v0=np.ones(min(num_persons, f)), solver="arpack")
        else:
            whole_PF = operator @ np.eye(f) if f < num_persons else (operator.H @ np.eye(num_persons)).T
            _, sizes, right_KF = np.linalg.svd(whole_PF, full_matrices=False)
        largest = np.argsort(-sizes)[:k]
        found_FK = np.zeros((f, k))
        found_FK[:, : len(largest)] = right_KF[largest].T
        # A direction that no label speaks of, as the constant where there are only pairs, is left at zero: a head not needed.
        size_K = np.sqrt(np.mean((self.contrast_NT @ self.basis.heads(found_FK)) ** 2, axis=0))
        return np.asarray(found_FK * np.where(size_K > NOTHING, START_SD / np.maximum(size_K, NOTHING), 0))

    def _said(self, weights_FC: Array) -> Array:
        """What the columns of the second moments multiply, in each label: g with all that is fixed, h, safety scores."""
        said_NC = self.contrast_NT @ self.basis.heads(weights_FC)
        said_NC[:, 0] += self.fixed_N
        return np.asarray(np.concatenate([said_NC, self.safety_NS], axis=1))

    def expect(self, weights_FC: Array, *, sweeps: int) -> float:
        """The E step; returns the bound it reaches, nats."""
        said_NM = self._said(weights_FC)
        given_N, heads_NK = said_NM[:, 0], said_NM[:, 1:]
        k = heads_NK.shape[1]
        outer_NKK = (heads_NK[:, :, None] * heads_NK[:, None, :]).reshape(-1, k * k)
        prior_K = np.concatenate([self.centre_K, np.zeros(self.safety_NS.shape[1])])
        for _ in range(sweeps):
            w_N = _curvature(self.x_N)
            precision_PKK = (self.owner_PN @ (outer_NKK * w_N[:, None])).reshape(-1, k, k) + np.eye(k)
            covariance_PKK = np.linalg.inv(precision_PKK)
            pull_PK = self.owner_PN @ (heads_NK * (self.kappa_N - w_N * given_N)[:, None]) + prior_K
            mean_PK = np.einsum("pkl,pl->pk", covariance_PKK, pull_PK)
            mean_N = given_N + np.einsum("nk,nk->n", heads_NK, mean_PK[self.person_N])
            spread_N = np.sum(outer_NKK * covariance_PKK.reshape(-1, k * k)[self.person_N], axis=1)
            self.x_N = np.sqrt(mean_N**2 + np.maximum(spread_N, 0))
        self.second_PMM[:, 0, 0] = 1
        self.second_PMM[:, 0, 1:] = self.second_PMM[:, 1:, 0] = mean_PK
        self.second_PMM[:, 1:, 1:] = covariance_PKK + mean_PK[:, :, None] * mean_PK[:, None, :]
        apart_PK = mean_PK - prior_K
        kl = 0.5 * np.sum(
            np.trace(covariance_PKK, axis1=1, axis2=2) + np.sum(apart_PK**2, axis=1) - k + np.linalg.slogdet(precision_PKK)[1]
        )
        fits = np.sum(log_expit(self.x_N) + self.kappa_N * mean_N - self.x_N / 2)
        return float(fits - kl - 0.5 * np.sum(self.ridge_FC * weights_FC**2))

    def maximise(self, weights_FC: Array) -> Array:
        """The M step: some conjugate gradients from where W is; each raises the bound."""
        c = weights_FC.shape[1]
        self.centre_K = self.second_PMM[:, 0, 1:c].mean(axis=0)
        w_N = _curvature(self.x_N)
        second_PCC, mean_PC = self.second_PMM[:, :c, :c], self.second_PMM[:, :c, 0]
        weighed_NCC = second_PCC[self.person_N] * w_N[:, None, None]
        aside_NC = mean_PC[self.person_N] * self.fixed_N[:, None]
        aside_NC = aside_NC + np.einsum("ncs,ns->nc", self.second_PMM[:, :c, c:][self.person_N], self.safety_NS)
        wanted_NC = mean_PC[self.person_N] * self.kappa_N[:, None] - w_N[:, None] * aside_NC
        transposed_TN = self.contrast_NT.T.tocsr()

        def apply(w_FC: Array) -> Array:
            said_NC = self.contrast_NT @ self.basis.heads(w_FC)
            pull_FC = self.basis.gradient(transposed_TN @ np.einsum("ncd,nd->nc", weighed_NCC, said_NC))
            return np.asarray(pull_FC + self.ridge_FC * w_FC)

        mass_NC = np.einsum("ncc->nc", weighed_NCC)
        diagonal_FC = self.basis.squares(abs(transposed_TN) @ mass_NC) + self.ridge_FC
        residual_FC = self.basis.gradient(transposed_TN @ wanted_NC) - apply(weights_FC)
        return _conjugate_gradients(apply, weights_FC, residual_FC, diagonal_FC, self.settings.num_cg_steps)


def _conjugate_gradients(apply: Callable[[Array], Array], x: Array, residual: Array, diagonal: Array, steps: int) -> Array:
    """Steps of preconditioned conjugate gradients for A x = b from x, where residual = b - A x (Hestenes and Stiefel 1952)."""
    scaled = residual / diagonal
    direction, product = scaled, float(np.sum(residual * scaled))
    for _ in range(steps):
        if product < SMALLEST:
            break
        image = apply(direction)
        length = product / float(np.sum(direction * image))
        x, residual = x + length * direction, residual - length * image
        scaled = residual / diagonal
        product, before = float(np.sum(residual * scaled)), product
        direction = scaled + product / before * direction
    return x


def _curvature(x_N: Array) -> Array:
    """tanh(x / 2) / (2 x), 1/4 at 0."""
    safe_N = np.maximum(x_N, 1e-6)
    return np.asarray(np.tanh(safe_N / 2) / (2 * safe_N))


def _in_order(basis: Basis, weights_FC: Array) -> Array:
    """The same model with heads orthogonal over the texts, the largest first: z's prior is the same in any turn of V."""
    _, _, turn_KK = np.linalg.svd(basis.heads(weights_FC[:, 1:]), full_matrices=False)
    turned_FK = weights_FC[:, 1:] @ turn_KK.T
    signs_K = np.sign(turned_FK[np.argmax(np.abs(turned_FK), axis=0), np.arange(turned_FK.shape[1])])
    return np.concatenate([weights_FC[:, :1], turned_FK * np.where(signs_K == 0, 1, signs_K)], axis=1)
