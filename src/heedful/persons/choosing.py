"""The best of several answers for a person, at once: no weights of a language model change.

Answers that a safety head holds to be unsafe are out of the choice while one of the same prompt is safe, whoever asks.
"""

# T texts, K weights a person, R draws

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from heedful.persons.labels import Array
from heedful.persons.model import PersonalReward

NUM_DRAWS = 2_000


@dataclass(frozen=True)
class Choice:
    """One prompt's best answer. reward, sd: of it, in logits. probability: that it is the person's best of those not vetoed.

    vetoed: answers that were out of the choice for safety; unsafe: whether all were, so that none could be held out.
    """

    prompt_id: str
    completion_id: str
    reward: float
    sd: float
    probability: float
    num_answers: int
    vetoed: tuple[str, ...]
    unsafe: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def best(
    model: PersonalReward,
    person: str,
    prompt_id: str,
    ids: Sequence[str],
    features_TD: Array,
    *,
    caution: float = 0.0,
    safety_least: float = 0.0,
    seed: int = 0,
) -> Choice:
    """The answer with the greatest mean - caution * sd of the person's reward, among those that are safe enough.

    safety_least: each safety score of an answer must reach it, unless no answer of the prompt does. The probability comes from
    NUM_DRAWS of the person's weights, all answers under the same draw; weights with a floor are cut off at it.
    """
    mean_T, sd_T = model.rewards(person, features_TD, ids)
    scores_TS = model.heads.safety.scores(features_TD)
    safe_T = np.all(scores_TS >= safety_least, axis=1)
    open_T = safe_T if safe_T.any() else np.ones(len(ids), dtype=bool)
    place = int(np.argmax(np.where(open_T, mean_T - caution * sd_T, -np.inf)))
    offset_T, heads_TK = model.heads.read(features_TD, ids)
    known = model.of(person)
    factor_KK = _root(known.covariance_PKK[0])
    drawn_RK = known.mean_PK[0] + np.random.default_rng(seed).standard_normal((NUM_DRAWS, len(factor_KK))) @ factor_KK.T
    rewards_RT = np.where(open_T, offset_T + np.maximum(drawn_RK, model.heads.floor_K) @ heads_TK.T, -np.inf)
    return Choice(
        prompt_id,
        ids[place],
        float(mean_T[place]),
        float(sd_T[place]),
        float(np.mean(np.argmax(rewards_RT, axis=1) == place)),
        len(ids),
        tuple(id_ for id_, kept in zip(ids, open_T, strict=True) if not kept),
        not safe_T.any(),
    )


def _root(covariance_KK: Array) -> Array:
    """A with A A^T = covariance; some directions may be certain, which Cholesky's would not bear."""
    values_K, vectors_KK = np.linalg.eigh(covariance_KK)
    return np.asarray(vectors_KK * np.sqrt(np.maximum(values_K, 0)))
