"""Safety heads: what the team, not a person, has judged to be safe, as a score that every person's reward must keep.

    s(x) = (a . phi(x) + c) / sd      logistic regression on the team's own labels, sd over the texts of these labels

A vote of 1 says safe. 0 is where the votes are as likely to be 1 as 0; from pairs alone, which have no zero, the mean of the
texts.
"""

# T texts, D features, S safety heads

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heedful.errors import DataError
from heedful.persons.basis import Basis, scale_of
from heedful.persons.fitting import Settings, fit_global
from heedful.persons.labels import NONE, Array, Labels

SMALLEST_SD = 1e-6


@dataclass(frozen=True)
class Safety:
    """S heads, linear in the raw features. names: of each; scores have sd 1 on the texts they learned from."""

    names: tuple[str, ...]
    directions_SD: Array
    constants_S: Array

    def scores(self, features_TD: Array) -> Array:
        """(T, S), higher is safer."""
        return np.asarray(np.asarray(features_TD, dtype=np.float64) @ self.directions_SD.T + self.constants_S)


def no_safety(num_features: int) -> Safety:
    return Safety((), np.zeros((0, num_features)), np.zeros(0))


def fit_safety(name: str, labels: Labels, features_TD: Array, *, ridge: float = 1.0) -> Safety:
    """One head. Raises DataError where the labels say nothing that the features could tell."""
    scale = scale_of(features_TD)
    phi_TD = scale.apply(features_TD)
    nothing_TS = np.zeros((len(phi_TD), 0))
    theta_F, _ = fit_global(Basis(phi_TD, nothing_TS, 0), nothing_TS, labels, Settings(ridge_global=ridge))
    direction_D = theta_F[:-1] / scale.root_mean_square
    found_T = phi_TD @ theta_F[:-1]
    sd = float(found_T.std())
    if sd < SMALLEST_SD:
        raise DataError(f"safety head {name!r}: its labels are all alike, or its texts are; give labels of both kinds")
    votes = bool((labels.second_N == NONE).any())
    constant = float(theta_F[-1]) if votes else -float(found_T.mean())
    return Safety((name,), direction_D[None] / sd, np.array([(constant - float(scale.mean_D @ direction_D)) / sd]))


def together(heads: Sequence[Safety], num_features: int) -> Safety:
    """Several heads as one."""
    if not heads:
        return no_safety(num_features)
    return Safety(
        tuple(name for head in heads for name in head.names),
        np.concatenate([head.directions_SD for head in heads]),
        np.concatenate([head.constants_S for head in heads]),
    )
