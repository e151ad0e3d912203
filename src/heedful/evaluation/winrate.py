"""How often one model's answer is preferred to another's: raw, and as if both were equally long."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from heedful.errors import DataError
from heedful.evaluation.statistics import Interval, holm, mean_interval, pairs_needed
from heedful.feedback.consensus import latest
from heedful.judging.judge import Opinion
from heedful.records import Completion, Judgement

FIRST, SECOND = "first/", "second/"  # before the ids of an A-or-B project's completions


@dataclass(frozen=True)
class Duel:
    """Two answers to a prompt, judged. score: 1 where the second one wins, 0.5 for a tie, 0 where the first does.

    A judge who gives probabilities gives in its place that of the second one's being better.

    words: of the second answer less those of the first.
    """

    prompt_id: str
    score: float
    words: int


def paired(first: Sequence[Completion], second: Sequence[Completion]) -> list[tuple[Completion, Completion]]:
    """The n-th answer to a prompt on one side beside the n-th on the other. Raises DataError for a prompt of one side alone."""
    sides: list[dict[str, list[Completion]]] = []
    for completions in (first, second):
        own = defaultdict(list)
        for completion in completions:
            own[completion.prompt_id].append(completion)
        sides.append(own)
    if set(sides[0]) & set(sides[1]) and set(sides[0]) != set(sides[1]):
        odd = min(set(sides[0]) ^ set(sides[1]))
        raise DataError(f"prompt {odd!r} has an answer on one side only; sample both models on the same prompts")
    found = [pair for prompt_id in sides[0] for pair in zip(sides[0][prompt_id], sides[1].get(prompt_id, ()), strict=False)]
    if not found:
        raise DataError("the two files have no prompt in common; sample both models on the same prompts")
    return found


def by_reward(pairs: Sequence[tuple[Completion, Completion]], rewards: Sequence[tuple[float, float]]) -> list[Duel]:
    """The larger reward wins. rewards: of both answers of each pair. Raises DataError for one that is no number."""
    found = []
    for (first, second), (one, other) in zip(pairs, rewards, strict=True):
        if not (math.isfinite(one) and math.isfinite(other)):
            raise DataError(
                f"prompt {first.prompt_id!r}: a reward is {one if not math.isfinite(one) else other}; nothing can be said of a "
                "pair without two rewards: mend the reward, or leave the prompt out"
            )
        found.append(Duel(first.prompt_id, 0.5 + 0.5 * float(np.sign(other - one)), words_of(second) - words_of(first)))
    return found


def by_judge(pairs: Sequence[tuple[Completion, Completion]], opinions: Sequence[Opinion]) -> list[Duel]:
    """What an AI judge says of each pair: the probability that the second one is better, near one half a tie."""
    return [
        Duel(first.prompt_id, opinion.score, words_of(second) - words_of(first))
        for (first, second), opinion in zip(pairs, opinions, strict=True)
    ]


def by_people(pairs: Sequence[tuple[Completion, Completion]], judgements: Sequence[Judgement]) -> list[Duel]:
    """What people said in an A-or-B project, one duel a judgement; what was flagged loses to what was not.

    Raises DataError for judgements of something else.
    """
    known = {first.prompt_id: (first, second) for first, second in reversed(pairs)}
    found = []
    for prompt_id, rows in latest(judgements).items():
        if prompt_id not in known:
            raise DataError(f"judgements name prompt {prompt_id!r}, of which the two files do not both hold an answer")
        first, second = known[prompt_id]
        for judgement in rows:
            places = {}
            worst = len(judgement.ranks) + 1
            for id_, rank in (*judgement.ranks.items(), *((id_, worst) for id_ in judgement.flagged)):
                places[id_.partition("/")[0] + "/"] = rank
            asked = {*judgement.ranks, *judgement.flagged}
            if set(places) == {FIRST, SECOND} and asked != {FIRST + first.id, SECOND + second.id}:
                raise DataError(f"judgement {judgement.id!r} is of other completions than the first ones of the two files")
            if set(places) != {FIRST, SECOND}:
                raise DataError(
                    f"judgement {judgement.id!r} is not of an A-or-B project: its completions should be called "
                    f"'{FIRST}...' and '{SECOND}...'; make one with 'heedful label import --mode versus'"
                )
            score = 0.5 + 0.5 * float(np.sign(places[FIRST] - places[SECOND]))
            found.append(Duel(prompt_id, score, words_of(second) - words_of(first)))
    return found


def words_of(completion: Completion) -> int:
    return len(completion.text.split())


def win_rate(duels: Sequence[Duel], *, num_resamples: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """The second one's share of wins, a tie half of one, with a bootstrap over prompts; see `length_controlled`.

    Where duels hold probabilities it is their mean; wins and losses are those above and below one half.
    decided: wins and losses. p: of the sign test on prompts, each of which counts once. pairs_needed: decided pairs it takes to
    tell the rate found among them from a coin's. words: how much longer the second one's answers are, on the average.
    """
    if not duels:
        raise DataError("a win rate of nothing: no two answers were compared")
    scores, clusters = [duel.score for duel in duels], [duel.prompt_id for duel in duels]
    wins, losses = sum(score > 0.5 for score in scores), sum(score < 0.5 for score in scores)
    by_prompt = defaultdict(list)
    for duel in duels:
        by_prompt[duel.prompt_id].append(duel.score)
    means = [float(np.mean(own)) for own in by_prompt.values()]
    controlled = length_controlled(duels)
    won, lost = sum(mean > 0.5 for mean in means), sum(mean < 0.5 for mean in means)
    return {
        "win_rate": mean_interval(scores, clusters, num_resamples=num_resamples, seed=seed, within=(0, 1)).as_dict(),
        "length_controlled": controlled.as_dict() if controlled else None,
        "wins": wins,
        "ties": len(duels) - wins - losses,
        "losses": losses,
        "num_prompts": len(by_prompt),
        "p": float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0,
        "pairs_needed": pairs_needed(wins / (wins + losses)) if wins + losses else None,
        "words": float(np.mean([duel.words for duel in duels])),
    }


def length_controlled(duels: Sequence[Duel]) -> Interval | None:
    """The win rate where both answers are equally long: the intercept of a logistic regression on the difference in length.

    The difference enters as tanh(words / standard deviation), as in Dubois et al., "Length-controlled AlpacaEval" (2024), of
    which this is the part without prompts' difficulty. Standard errors are clustered by prompt. None where that cannot be told:
    fewer than three prompts, all won or all lost, length alone decides, or one side's answers are always the longer ones.
    """
    import statsmodels.api as sm

    scores = np.array([duel.score for duel in duels])
    words = np.array([duel.words for duel in duels], dtype=float)
    prompts, cluster = np.unique([duel.prompt_id for duel in duels], return_inverse=True)
    if len(prompts) < 3 or np.ptp(scores) == 0 or words.min() > 0 or words.max() < 0:
        return None
    spread = words.std()
    terms = [np.ones(len(scores))] + ([np.tanh(words / spread)] if spread else [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a separation, which is seen below
        fitted = sm.GLM(scores, np.column_stack(terms), family=sm.families.Binomial()).fit(
            cov_type="cluster", cov_kwds={"groups": cluster}
        )
    centre, error = float(fitted.params[0]), float(fitted.bse[0])
    estimate = float(1 / (1 + np.exp(-centre)))
    if not fitted.converged or np.abs(fitted.params).max() > SEPARATED or not np.isfinite(error):
        return None
    low, high = (float(1 / (1 + np.exp(-(centre + side * stats.norm.ppf(0.975) * error)))) for side in (-1, 1))
    return Interval(estimate, low, high)


SEPARATED = 15.0  # logits; beyond, the fit runs away to infinity


def tournament(
    duels: Mapping[tuple[str, str], Sequence[Duel]], *, num_resamples: int = 10_000, seed: int = 0
) -> list[dict[str, Any]]:
    """`win_rate` of every two sides by (first, second), with p corrected by Holm for their number."""
    found = [
        {"first": first, "second": second} | win_rate(own, num_resamples=num_resamples, seed=seed)
        for (first, second), own in duels.items()
    ]
    for row, corrected in zip(found, holm([row["p"] for row in found]), strict=True):
        row["p_holm"] = corrected
    return found
