"""Simulated labelers: the rubric plus noise, in place of people. Every record they write says source "simulated"."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence

from heedful.feedback.refusals import is_degenerate
from heedful.feedback.rubric import score
from heedful.records import Completion, Judgement, Prompt


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
    """Every labeler's ranking of every prompt with two completions or more.

    A careful labeler adds Gaussian noise (sd `noise`) to the rubric's score, ties what then differs by less than `tie_width`,
    and flags what says nothing. The last `num_careless` labelers rank at random without reading. The same seed gives the same
    judgements whatever the order of the input.
    """
    answers: dict[str, list[Completion]] = defaultdict(list)
    for completion in completions:
        answers[completion.prompt_id].append(completion)
    judgements = []
    for prompt in prompts:
        shown = sorted(answers[prompt.id], key=lambda completion: completion.id)
        if len(shown) < 2:
            continue
        for number in range(1, num_labelers + 1):
            name = f"simulated-{number}"
            chance = random.Random(hashlib.sha256(f"{seed}/{name}/{prompt.id}".encode()).digest())
            order = [completion.id for completion in shown]
            chance.shuffle(order)
            if number > num_labelers - num_careless:
                flagged = [id_ for id_ in order if chance.random() < 0.05]
                scores = {id_: chance.random() for id_ in order}
                seconds = chance.uniform(3, 8)
            else:
                flagged = [completion.id for completion in shown if is_degenerate(completion.text)]
                scores = {c.id: score(prompt, c).total + chance.gauss(0, noise) for c in shown}
                seconds = chance.uniform(0.8, 1.2) * (6 + sum(len(c.text.split()) for c in shown) / 4)
            judgements.append(
                Judgement(
                    id=f"{prompt.id}/{name}",
                    prompt_id=prompt.id,
                    labeler=name,
                    source="simulated",
                    criterion=criterion,
                    ranks=ranked({id_: scores[id_] for id_ in order if id_ not in flagged}, tie_width),
                    flagged=tuple(flagged),
                    shown_order=tuple(order),
                    seconds=round(seconds, 1),
                    created_at=created_at,
                )
            )
    return judgements


def ranked(scores: dict[str, float], tie_width: float) -> dict[str, int]:
    """Dense ranks, 1 best; a score within tie_width of the best one of its rank ties with it."""
    ranks: dict[str, int] = {}
    rank, top = 0, 0.0
    for id_, value in sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])):
        if rank == 0 or top - value >= tie_width:
            rank, top = rank + 1, value
        ranks[id_] = rank
    return ranks
