"""Persons of known wishes over texts of known features: what a personal reward model should find again."""

# P persons, T texts, D features, K directions in which persons differ

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import expit

from heedful.persons.asking import ask
from heedful.persons.labels import Label, Labels, gather
from heedful.persons.model import PersonalReward, know_persons

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class World:
    """features_TD of texts t00000, t00001, ...; reward_PT: each person's true reward of each, in logits."""

    features_TD: Array
    reward_PT: Array

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return tuple(f"t{number:05}" for number in range(len(self.features_TD)))

    @cached_property
    def persons(self) -> tuple[str, ...]:
        return tuple(f"p{number:04}" for number in range(len(self.reward_PT)))

    def labels(self, per_person: int, *, pairs: bool, seed: int) -> Labels:
        """Labels by chance: each of a text or a pair drawn at random, and of the answer that the true reward makes likely."""
        chance = np.random.default_rng(seed)
        found = []
        for person, reward_T in zip(self.persons, self.reward_PT, strict=True):
            for _ in range(per_person):
                a = int(chance.integers(len(reward_T)))
                b = (a + 1 + int(chance.integers(len(reward_T) - 1))) % len(reward_T)
                logit = reward_T[a] - reward_T[b] if pairs else reward_T[a]
                value = float(chance.random() < expit(logit))
                found.append(Label(person, self.texts[a], self.texts[b] if pairs else None, value))
        return gather(found, persons=self.persons, texts=self.texts)


def world(num_persons: int, num_texts: int, *, num_features: int = 12, num_directions: int = 2, seed: int = 0) -> World:
    """theta and the directions are drawn once, z_u ~ N(0, I): the model that the fit supposes."""
    chance = np.random.default_rng(seed)
    features_TD = chance.standard_normal((num_texts, num_features))
    common_D, apart_DK = chance.standard_normal(num_features), chance.standard_normal((num_features, num_directions))
    z_PK = chance.standard_normal((num_persons, num_directions))
    size = np.sqrt(num_features)
    common_T, apart_TK = features_TD @ common_D / size, 2 * features_TD @ apart_DK / size
    return World(features_TD, common_T + z_PK @ apart_TK.T)


def questioned(
    found: World,
    model: PersonalReward,
    pairs: Sequence[tuple[int, int]],
    by: Any,
    persons: Iterable[int],
    seed: int,
    num_questions: int,
    num_offered: int = 300,
) -> float:
    """Correlation of new persons' rewards, learned from some questions, with the true ones; the mean over persons.

    Each question is one of num_offered pairs drawn at random, and is answered by chance as the true reward makes likely.
    """
    likeness = []
    for place in persons:
        chance = np.random.default_rng([seed, place])
        left = [pairs[i] for i in chance.permutation(len(pairs))[:num_offered]]
        own, answers = replace(model, persons=()), []
        for number in range(num_questions):
            (question,) = ask(own, "new", left, found.texts, found.features_TD, by=by, seed=number)
            a, b = found.texts.index(question.first), found.texts.index(question.second)
            left.remove((a, b))
            value = float(chance.random() < expit(found.reward_PT[place, a] - found.reward_PT[place, b]))
            answers.append(Label("new", question.first, question.second, value))
            own = know_persons(model.heads, gather(answers, texts=found.texts), found.features_TD)
        learned, _ = own.rewards("new", found.features_TD, found.texts)
        likeness.append(np.corrcoef(learned, found.reward_PT[place])[0, 1])
    return float(np.mean(likeness))
