"""The personal reward model: shared heads over frozen features, and a small weight vector a person with its uncertainty."""

# P persons, T texts, D features, F inputs of a head, K heads of what differs, S safety heads, C = 1 + K, N labels

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from heedful.errors import DataError
from heedful.persons.basis import Basis, Scale, contrasts, owners, scale_of
from heedful.persons.fitting import Settings, fit
from heedful.persons.labels import Array, Label, Labels, gather
from heedful.persons.posterior import Posterior, infer, moments, prior, probability
from heedful.persons.safety import Safety

NEW = -1  # the place of a text that no head was fitted on


@dataclass(frozen=True)
class Heads:
    """What all persons share. weights_FC: [theta, V]; slopes_SC, safety_mean_S: what is taken out of them with safety.

    population_S: the population's weights of the safety scores. texts: those that have a place of their own in weights_FC.
    """

    settings: Settings
    scale: Scale
    weights_FC: Array
    slopes_SC: Array
    safety_mean_S: Array
    population_S: Array
    safety: Safety
    texts: tuple[str, ...]

    @property
    def num_weights(self) -> int:
        """Weights a person: those of V, then those of the safety heads."""
        return int(self.weights_FC.shape[1]) - 1 + len(self.population_S)

    @property
    def floor_K(self) -> Array:
        """Least value of each weight, in units of its prior's sd from the population's."""
        settings, free = self.settings, np.full(self.weights_FC.shape[1] - 1, -np.inf)
        if settings.safety_sd == 0:
            return np.concatenate([free, np.full(len(self.population_S), -np.inf)])
        return np.concatenate([free, np.minimum(0, (settings.safety_floor - self.population_S) / settings.safety_sd)])

    def read(self, features_TD: Array, ids: Sequence[str]) -> tuple[Array, Array]:
        """Of each text what the population gives it, (T,), and what a person's weights multiply, (T, K + S).

        ids: of the texts; one that was in the fit has a place of its own, a new one has none.
        """
        d, settings = len(self.scale.mean_D), self.settings
        safety_TS = self.safety.scores(features_TD)
        found_TC = self.scale.apply(features_TD) @ self.weights_FC[:d] + self.weights_FC[d]
        if settings.text_scale > 0:
            known = {id_: number for number, id_ in enumerate(self.texts)}
            places = np.array([known.get(id_, NEW) for id_ in ids], dtype=np.int64)
            found_TC[places != NEW] += settings.text_scale * self.weights_FC[d + 1 + places[places != NEW]]
        found_TC -= (safety_TS - self.safety_mean_S) @ self.slopes_SC
        weighed_TK = np.concatenate([found_TC[:, 1:], safety_TS * settings.safety_sd], axis=1)
        return found_TC[:, 0] + safety_TS @ self.population_S, weighed_TK


@dataclass(frozen=True)
class PersonalReward:
    """Heads and persons. posterior: of the persons in order; counts_P: their labels."""

    heads: Heads
    persons: tuple[str, ...]
    counts_P: Array
    posterior: Posterior

    def of(self, person: str) -> Posterior:
        """The weights of one person, (1, K); the population's for one who has given no label."""
        if person not in self.persons:
            return prior(1, self.heads.num_weights)
        place = self.persons.index(person)
        return Posterior(self.posterior.mean_PK[place : place + 1], self.posterior.covariance_PKK[place : place + 1])

    def num_labels(self, person: str) -> int:
        return int(self.counts_P[self.persons.index(person)]) if person in self.persons else 0

    def rewards(self, person: str, features_TD: Array, ids: Sequence[str]) -> tuple[Array, Array]:
        """Mean and standard deviation of the person's reward of each text, in logits. The sd comes from the weights alone."""
        offset_T, heads_TK = self.heads.read(features_TD, ids)
        mean_T, variance_T = moments(self.of(person), np.zeros(len(ids), dtype=np.int64), heads_TK, offset_T)
        return mean_T, np.sqrt(variance_T)

    def predict(self, labels: Labels, features_TD: Array) -> Array:
        """Probability of 1 of each label, (N,), given what is known of its person. features_TD: of labels.texts."""
        offset_T, heads_TK = self.heads.read(features_TD, labels.texts)
        contrast_NT = contrasts(labels)
        everybody = [self.of(person) for person in labels.persons]
        known = Posterior(
            *(np.concatenate(parts) for parts in zip(*((p.mean_PK, p.covariance_PKK) for p in everybody), strict=True))
        )
        mean_N, variance_N = moments(known, labels.person_N, contrast_NT @ heads_TK, contrast_NT @ offset_T)
        return probability(mean_N, variance_N)


def learn_heads(
    labels: Labels,
    features_TD: Array,
    safety: Safety,
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Heads:
    """Heads from labels whose texts have these raw features. Raises DataError where there is nothing to learn from."""
    if len(labels) == 0:
        raise DataError("there is no label to learn from; give votes, judgements or preferences")
    if features_TD.shape[0] != len(labels.texts) or not np.isfinite(features_TD).all():
        raise DataError(f"expected finite features of {len(labels.texts)} texts, found shape {features_TD.shape}")
    scale = scale_of(features_TD)
    safety_TS = safety.scores(features_TD)
    basis = Basis(scale.apply(features_TD), safety_TS, settings.text_scale)
    found = fit(basis, safety_TS, labels, settings, progress)
    return Heads(
        settings,
        scale,
        found.weights_FC,
        basis.slopes(found.weights_FC),
        safety_TS.mean(axis=0),
        found.safety_S,
        safety,
        labels.texts if settings.text_scale > 0 else (),
    )


def know_persons(heads: Heads, labels: Labels, features_TD: Array) -> PersonalReward:
    """The persons behind some labels, by heads that may have been found without them. features_TD: of labels.texts."""
    offset_T, heads_TK = heads.read(features_TD, labels.texts)
    contrast_NT = contrasts(labels)
    known = infer(contrast_NT @ heads_TK, contrast_NT @ offset_T, labels.value_N, owners(labels), heads.floor_K)
    return PersonalReward(heads, labels.persons, labels.counts_P(), known)


def fit_persons(
    labels: Labels,
    features_TD: Array,
    safety: Safety,
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> PersonalReward:
    """Heads and persons from the same labels."""
    return know_persons(learn_heads(labels, features_TD, safety, settings, progress), labels, features_TD)


def narrow(found: Sequence[Label], features: dict[str, Array]) -> tuple[Labels, Array]:
    """Labels with no person and no text but those that occur in them, and the texts' features."""
    labels = gather(found)
    return labels, np.stack([features[text] for text in labels.texts]) if labels.texts else np.zeros((0, 1))
