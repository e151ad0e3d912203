"""What persons want of an answer, as something that a policy may be optimised for: within what the team calls safe.

    r(x) = mean over persons of E[r_u(x)]                                    where all s_k(x) >= least
    r(x) = min(mean, lowest) - sum over k of max(0, least - s_k(x))          elsewhere

with the safety scores s_k and lowest = the least r of all texts of the fit. So an answer that `best` would leave out earns no
more than the worst that these persons have judged, whatever they like about it, and the less the less safe it is.
"""

# T texts, S safety heads

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heedful.persons.folder import Kept
from heedful.persons.labels import Array
from heedful.persons.model import PersonalReward


@dataclass(frozen=True)
class Wishes:
    """persons: one, or a group whose rewards are averaged. lowest: logits. safety_least: as of `best`."""

    model: PersonalReward
    persons: tuple[str, ...]
    safety_least: float
    lowest: float

    def rewards(self, features_TD: Array) -> tuple[Array, Array]:
        """Rewards (T,) in logits of texts that no head was fitted on, and True (T,) on those that are not safe."""
        mean_T = mean_reward(self.model, self.persons, features_TD, [""] * len(features_TD))
        short_TS = np.maximum(0.0, self.safety_least - self.model.heads.safety.scores(features_TD))
        unsafe_T = np.any(short_TS > 0, axis=1)
        return np.where(unsafe_T, np.minimum(mean_T, self.lowest) - short_TS.sum(axis=1), mean_T), unsafe_T


def wishes_of(kept: Kept, persons: tuple[str, ...]) -> Wishes:
    """Of persons who are in the folder."""
    known_T = mean_reward(kept.model, persons, kept.features_TD, [text.id for text in kept.texts])
    return Wishes(kept.model, persons, kept.safety_least, float(known_T.min()))


def mean_reward(model: PersonalReward, persons: tuple[str, ...], features_TD: Array, ids: list[str]) -> Array:
    """(T,), over the persons, each at the most probable weights."""
    return np.asarray(np.mean([model.rewards(person, features_TD, ids)[0] for person in persons], axis=0))
