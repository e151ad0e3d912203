"""What the heads read of a text, and the linear map from heads to the labels of persons.

A text t has f_t = [phi_t, 1, tau e_t]: its frozen features, centred and scaled to mean square 1, a constant, and a place of
its own for what the features do not tell of a text that several persons have judged (regression-based latent factors, Agarwal
and Chen, KDD 2009). A text seen for the first time has no such place.

Safety scores s_t are taken out of all heads: each column of f W is replaced by what its regression on s over the texts leaves.
So over these texts no head goes up or down with safety, and only the safety weights do.
"""

# T texts, D features, F = D + 1 + T inputs of a head, C heads, S safety heads, N labels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from heedful.persons.labels import NONE, Array, Labels

SMALLEST = 1e-12


@dataclass(frozen=True)
class Scale:
    """How raw features become inputs: (features - mean) / root_mean_square, one number for all, so that directions keep
    theirs."""

    mean_D: Array
    root_mean_square: float

    def apply(self, features_TD: Array) -> Array:
        return (np.asarray(features_TD, dtype=np.float64) - self.mean_D) / self.root_mean_square


def scale_of(features_TD: Array) -> Scale:
    """The scale that gives these texts mean 0 and mean squared length 1."""
    found = np.asarray(features_TD, dtype=np.float64)
    mean_D = found.mean(axis=0)
    size = float(np.sqrt(np.mean(np.sum((found - mean_D) ** 2, axis=1))))
    return Scale(mean_D, size if size > SMALLEST else 1.0)


class Basis:
    """The inputs of the heads for the texts of a fit.

    phi_TD: scaled features. safety_TS: scores of the safety heads, (T, 0) without any. text_scale: tau, 0 for no places.
    """

    def __init__(self, phi_TD: Array, safety_TS: Array, text_scale: float) -> None:
        self.phi_TD = phi_TD
        self.text_scale = text_scale
        self.num_texts, self.num_features = phi_TD.shape
        self.num_inputs = self.num_features + 1 + (self.num_texts if text_scale > 0 else 0)
        self.centred_TS = safety_TS - safety_TS.mean(axis=0)
        self.inverse_ST = np.linalg.pinv(self.centred_TS) if safety_TS.shape[1] else np.zeros((0, self.num_texts))

    def plain(self, weights_FC: Array) -> Array:
        """f W without the regression on safety, (T, C)."""
        d = self.num_features
        found = self.phi_TD @ weights_FC[:d] + weights_FC[d]
        return np.asarray(found + self.text_scale * weights_FC[d + 1 :]) if self.text_scale > 0 else np.asarray(found)

    def slopes(self, weights_FC: Array) -> Array:
        """Of each column of f W on each safety score, (S, C): what is taken out."""
        return np.asarray(self.inverse_ST @ self.plain(weights_FC))

    def heads(self, weights_FC: Array) -> Array:
        """What the heads say of each text, (T, C)."""
        found = self.plain(weights_FC)
        return np.asarray(found - self.centred_TS @ (self.inverse_ST @ found))

    def gradient(self, pull_TC: Array) -> Array:
        """The transpose of `heads`: pulls on the heads of each text become pulls on the weights, (F, C)."""
        pull_TC = pull_TC - self.centred_TS @ (self.inverse_ST @ pull_TC)  # a projection is its own transpose
        parts = [self.phi_TD.T @ pull_TC, pull_TC.sum(axis=0, keepdims=True)]
        return np.concatenate([*parts, self.text_scale * pull_TC] if self.text_scale > 0 else parts)

    def squares(self, mass_TC: Array) -> Array:
        """Sum over texts of mass times squared input, (F, C): a diagonal for preconditioning, the regression left aside."""
        parts = [np.square(self.phi_TD).T @ mass_TC, mass_TC.sum(axis=0, keepdims=True)]
        return np.concatenate([*parts, self.text_scale**2 * mass_TC] if self.text_scale > 0 else parts)


def contrasts(labels: Labels) -> sparse.csr_matrix:
    """(N, T): from a quantity of each text to that of each label, the text's own for a vote, first less second for a pair."""
    n = len(labels)
    pairs = np.flatnonzero(labels.second_N != NONE)
    rows = np.concatenate([np.arange(n), pairs])
    columns = np.concatenate([labels.first_N, labels.second_N[pairs]])
    signs = np.concatenate([np.ones(n), -np.ones(len(pairs))])
    return sparse.csr_matrix((signs, (rows, columns)), shape=(n, len(labels.texts)))


def owners(labels: Labels) -> sparse.csr_matrix:
    """(P, N): sums a quantity of labels by person."""
    n = len(labels)
    return sparse.csr_matrix((np.ones(n), (labels.person_N, np.arange(n))), shape=(len(labels.persons), n))
