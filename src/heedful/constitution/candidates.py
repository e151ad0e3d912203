"""Answers that are to be compared: as the model gives them, and under the good and the bad instruction of a principle.

Pairs of the second kind differ by what they were asked for, not by luck, so a small model gives pairs worth judging (Yang et
al. 2023, "RLCD: reinforcement learning from contrastive distillation").
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heedful.constitution.principles import Constitution, Principle
from heedful.errors import DataError
from heedful.judging.contrastive import Place, instructed
from heedful.judging.writing import Finished, Reply, Request, Writer
from heedful.records import Completion, Prompt, Sampling

GOOD, BAD = "good", "bad"
MAX_ANSWERS = 9  # that a consensus can rank exactly


@dataclass(frozen=True)
class _Wanted:
    """An answer to ask for. instruction: good or bad, of the principle; empty for an answer as the model gives it."""

    prompt: Prompt
    request: Request
    instruction: str = ""
    principle: str = ""
    pair: int = 0


def candidates(
    writer: Writer,
    prompts: Sequence[Prompt],
    constitution: Constitution,
    *,
    name: str,
    num_sampled: int,
    num_contrasted: int,
    tags: Sequence[str] = (),
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    place: Place = "system",
    seed: int = 0,
    finished: Finished | None = None,
) -> tuple[list[Completion], dict[str, int]]:
    """Completions in the prompts' order, and how many answers were left out for which reason.

    Those under instructions say in the fields `instruction` ("good" or "bad"), `principle` and `contrast` (a number they share)
    where they come from. An answer equal to an earlier one to its prompt is left out: nobody can prefer it.
    Raises DataError where no principle has instructions though num_contrasted asks for them.
    """
    if num_sampled + 2 * num_contrasted > MAX_ANSWERS:
        raise DataError(
            f"{num_sampled} answers and {num_contrasted} contrasted pairs are more than {MAX_ANSWERS} answers a prompt, the "
            "most that a consensus ranks; lower prefer.num_sampled or prefer.num_contrasted"
        )
    decoding: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    wanted: list[_Wanted] = []
    for prompt in prompts:
        for number in range(1, num_sampled + 1):
            wanted.append(_Wanted(prompt, Request(prompt.messages, _seed(seed, prompt.id, number), **decoding)))
        for number, principle in enumerate(_drawn(constitution, tags, num_contrasted, seed, prompt.id), start=1):
            # One seed for both, so that they part where the instructions make them.
            draw = _seed(seed, prompt.id, f"{number}/{principle.name}")
            for side, instruction in ((GOOD, principle.good), (BAD, principle.bad)):
                request = Request(instructed(prompt.messages, instruction, place), draw, **decoding)
                wanted.append(_Wanted(prompt, request, side, principle.name, number))
    replies = writer([one.request for one in wanted], finished)
    return _kept(wanted, replies, name)


def _drawn(constitution: Constitution, tags: Sequence[str], number: int, seed: int, prompt_id: str) -> list[Principle]:
    """Principles with instructions, by weight, one a contrasted pair."""
    if not number:
        return []
    able = [one for one in constitution.tagged(tags) if one.good.strip()]
    if not able:
        raise DataError(
            f"no principle of the constitution {constitution.name!r} has a good and a bad instruction, which "
            "prefer.num_contrasted needs; write the keys good and bad, or set it to 0"
        )
    draw = random.Random(_seed(seed, prompt_id, "principles"))
    return draw.choices(able, [one.weight for one in able], k=number)


def _kept(wanted: Sequence[_Wanted], replies: Sequence[Reply], name: str) -> tuple[list[Completion], dict[str, int]]:
    found: list[Completion] = []
    dropped: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    numbers: Counter[str] = Counter()
    for one, reply in zip(wanted, replies, strict=True):
        id_ = one.prompt.id
        if not reply.valid:
            dropped["invalid answer"] += 1
        elif (id_, reply.text) in seen:
            dropped["equal answer"] += 1
        else:
            seen.add((id_, reply.text))
            numbers[id_] += 1
            request = one.request
            origin = (
                {"instruction": one.instruction, "principle": one.principle, "contrast": one.pair} if one.instruction else {}
            )
            found.append(
                Completion(
                    id=f"{id_}/{numbers[id_]}",
                    prompt_id=id_,
                    text=reply.text,
                    model=name,
                    finish=reply.finish,
                    sampling=Sampling(
                        temperature=request.temperature,
                        top_p=request.top_p,
                        seed=request.seed,
                        max_new_tokens=request.max_new_tokens,
                    ),
                    **origin,  # type: ignore[arg-type]
                )
            )
    return found, dict(dropped)


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:6], "big")
