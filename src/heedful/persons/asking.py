"""Which pair to put before a person next: the one whose answer tells most about the person's weights.

    I = H[y] - E_z H[y | z],    d = r_u(a) - r_u(b) ~ N(m, v),    y ~ Bernoulli(sigma(d))

The mutual information of the answer and the weights (Lindley 1956; BALD of Houlsby et al. 2011, eq. 2), in nats, with the
expectations over d by Gauss-Hermite quadrature. Of several pairs asked at once each is chosen as if those before had been
answered: for a linear model an answer narrows the covariance by an amount that does not depend on what the answer is.
"""

# Q pairs, K weights a person, T texts

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import expit

from heedful.persons.labels import Array
from heedful.persons.model import PersonalReward

NUM_NODES = 32
By = Literal["information", "variance", "random"]


class Question(NamedTuple):
    """A pair for a person. probability: that first is the preferred one, as known now; information: nats; sd: of the
    difference."""

    first: str
    second: str
    probability: float
    information: float
    sd: float

    def as_dict(self) -> dict[str, Any]:
        return self._asdict()


def information(mean_Q: Array, variance_Q: Array) -> tuple[Array, Array]:
    """Expected information (Q,) in nats of answers about differences N(mean, variance), and how probable each answer 1 is."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    weights = weights / weights.sum()
    given = expit(mean_Q[:, None] + np.sqrt(variance_Q)[:, None] * nodes)
    forecast_Q = given @ weights
    return np.maximum(0.0, _entropy(forecast_Q) - _entropy(given) @ weights), forecast_Q


def _entropy(p: Array) -> Array:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-p * np.log(p) - (1 - p) * np.log1p(-p))


def ask(
    model: PersonalReward,
    person: str,
    pairs: Sequence[tuple[int, int]],
    ids: Sequence[str],
    features_TD: Array,
    *,
    count: int = 1,
    by: By = "information",
    seed: int = 0,
) -> list[Question]:
    """The best pairs to ask, first the best. pairs: places in ids that may be asked. by: variance takes that of the difference
    alone, random is for comparison.
    """
    offset_T, heads_TK = model.heads.read(features_TD, ids)
    first_Q, second_Q = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    offset_Q, heads_QK = offset_T[first_Q] - offset_T[second_Q], heads_TK[first_Q] - heads_TK[second_Q]
    known = model.of(person)
    mean_Q, covariance_KK = offset_Q + heads_QK @ known.mean_PK[0], known.covariance_PKK[0].copy()
    order = np.random.default_rng(seed).permutation(len(pairs))
    left = np.ones(len(pairs), dtype=bool)
    found = []
    for _ in range(min(count, len(pairs))):
        variance_Q = np.maximum(0.0, np.einsum("qk,kl,ql->q", heads_QK, covariance_KK, heads_QK))
        told_Q, forecast_Q = information(mean_Q, variance_Q)
        worth_Q = {"information": told_Q, "variance": variance_Q, "random": -np.argsort(order).astype(float)}[by]
        place = int(np.argmax(np.where(left, worth_Q, -np.inf)))
        left[place] = False
        found.append(
            Question(
                ids[first_Q[place]],
                ids[second_Q[place]],
                float(forecast_Q[place]),
                float(told_Q[place]),
                float(np.sqrt(variance_Q[place])),
            )
        )
        spread_K = covariance_KK @ heads_QK[place]
        weight = float(forecast_Q[place] * (1 - forecast_Q[place]))
        covariance_KK -= np.outer(spread_K, spread_K) * weight / (1 + weight * variance_Q[place])
    return found
