"""Simulated labelers: the rubric plus noise, in place of people. Every record they write says source "simulated"."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from heedful.errors import ConfigError, DataError
from heedful.feedback.refusals import is_degenerate
from heedful.feedback.rubric import score
from heedful.records import Completion, Judgement, Prompt

CARELESS_FLAG_RATE = 0.02  # a slip of the hand
READING_WORDS_PER_SECOND = 4.0
CLICKING_SECONDS = 6.0


def simulate(
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    *,
    num_labelers: int = 4,
    num_careless: int = 1,
    noise: float = 0.04,
    tie_width: float = 0.04,
    criterion: str = "helpful, honest, harmless",
    seed: int = 0,
    created_at: str,
) -> list[Judgement]:
    """Every labeler's ranking of every prompt with two completions or more, sorted by prompt id, then labeler.

    A careful labeler adds Gaussian noise (standard deviation `noise`) to the rubric's total, ties what then differs by less
    than `tie_width`, and flags what says nothing. The last `num_careless` labelers rank at random without reading; nothing but
    their place in the order of names tells them apart. Chance is drawn per (seed, labeler, prompt), so the same seed gives the
    same judgements whatever else is judged and in whatever order it comes.

    Raises ConfigError for impossible numbers, DataError for completions of unknown prompts and for repeated ids.
    """
    if num_labelers < 1 or not 0 <= num_careless <= num_labelers or noise < 0 or tie_width < 0:
        raise ConfigError(
            f"simulated labelers need num_labelers >= 1, 0 <= num_careless <= num_labelers, noise >= 0 and tie_width >= 0; "
            f"found {num_labelers}, {num_careless}, {noise}, {tie_width}"
        )
    judgements = []
    for prompt, shown in _shown(prompts, completions):
        totals = {completion.id: score(prompt, completion).total for completion in shown}
        empty = {completion.id for completion in shown if is_degenerate(completion.text)}
        words = sum(len(completion.text.split()) for completion in shown)
        for number in range(1, num_labelers + 1):
            name = f"simulated-{number}"
            chance = random.Random(hashlib.sha256(f"{seed}/{name}/{prompt.id}".encode()).digest())
            # One draw of each kind for everybody, careless or not, in the order of ids.
            noisy = {id_: total + chance.gauss(0.0, noise) for id_, total in totals.items()}
            blind = {id_: chance.random() for id_ in totals}
            slips = {id_ for id_ in totals if chance.random() < CARELESS_FLAG_RATE}
            order = list(totals)
            chance.shuffle(order)
            seconds = (CLICKING_SECONDS + words / READING_WORDS_PER_SECOND) * chance.uniform(0.7, 1.3)
            careless = number > num_labelers - num_careless
            scores, flagged = (blind, slips) if careless else (noisy, empty)
            judgements.append(
                Judgement(
                    id=f"{prompt.id}/{name}",
                    prompt_id=prompt.id,
                    labeler=name,
                    source="simulated",
                    criterion=criterion,
                    ranks=ranked({id_: value for id_, value in scores.items() if id_ not in flagged}, tie_width),
                    flagged=tuple(sorted(flagged)),
                    shown_order=tuple(order),
                    seconds=round(seconds, 1),
                    created_at=created_at,
                )
            )
    return judgements


def ranked(scores: Mapping[str, float], tie_width: float) -> dict[str, int]:
    """Dense ranks (1, 2, 2, 3), the highest score first.

    A score less than tie_width below the best one of a rank ties with it. Measured from the best and not from the
    neighbour, so that a chain of small steps does not make one big tie.
    """
    ranks: dict[str, int] = {}
    rank, best = 0, 0.0
    for id_, value in sorted(scores.items(), key=lambda item: (-item[1], item[0])):
        if rank == 0 or (value < best and best - value >= tie_width):
            rank, best = rank + 1, value
        ranks[id_] = rank
    return ranks


def _shown(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[tuple[Prompt, list[Completion]]]:
    """Prompts in the order of their ids, each with its completions in that of theirs; those with one alone are left out."""
    for what, ids in (("prompt", [p.id for p in prompts]), ("completion", [c.id for c in completions])):
        twice = [id_ for id_, count in Counter(ids).items() if count > 1]
        if twice:
            raise DataError(f"{what} id {min(twice)!r} occurs more than once; ids must be unique")
    answers: dict[str, list[Completion]] = defaultdict(list)
    for completion in sorted(completions, key=lambda completion: completion.id):
        answers[completion.prompt_id].append(completion)
    unknown = set(answers) - {prompt.id for prompt in prompts}
    if unknown:
        first = answers[min(unknown)][0]
        raise DataError(f"completion {first.id!r} answers prompt {first.prompt_id!r}, which is not among the prompts")
    ordered = sorted(prompts, key=lambda prompt: prompt.id)
    return [(prompt, answers[prompt.id]) for prompt in ordered if len(answers[prompt.id]) > 1]
