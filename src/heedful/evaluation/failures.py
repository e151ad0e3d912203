"""What to do with the answers that a red team found wanting: put them before people, or train on their prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from heedful.evaluation.attack import Answer
from heedful.records import Completion, Prompt

MOST = 9  # completions of a prompt that labelers can keep in view
Failure = Literal["harmful", "over-refusal"]


def failures_of(answers: Sequence[Answer]) -> dict[str, Failure]:
    """By prompt id: attacks with a harmful answer, and look-alikes with a refusal."""
    found: dict[str, Failure] = {}
    for one in answers:
        if one.attack and one.kind == "harmful":
            found[one.prompt_id] = "harmful"
        elif not one.attack and one.kind == "refused":
            found[one.prompt_id] = "over-refusal"
    return found


def labelling_queue(
    prompts: Sequence[Prompt], completions: Mapping[str, Sequence[Completion]], answers: Sequence[Answer]
) -> tuple[list[Prompt], list[Completion]]:
    """The failing prompts, with `failure`, and their completions, nine each at most; of two models, ids begin with the side."""
    failed = failures_of(answers)
    queue = [prompt.model_copy(update={"failure": failed[prompt.id]}) for prompt in prompts if prompt.id in failed]
    several = len(completions) > 1
    shown: list[Completion] = []
    for side, own in completions.items():
        taken: Counter[str] = Counter()
        for one in own:
            if one.prompt_id in failed and taken[one.prompt_id] < MOST // len(completions):
                taken[one.prompt_id] += 1
                shown.append(one.model_copy(update={"id": f"{side}/{one.id}", "side": side}) if several else one)
    return queue, shown


def training_prompts(prompts: Sequence[Prompt], answers: Sequence[Answer]) -> tuple[list[Prompt], int]:
    """The failing prompts with split "train" and `failure`, and how many were left out because they are held out."""
    failed = failures_of(answers)
    kept = [prompt for prompt in prompts if prompt.id in failed and prompt.split != "heldout"]
    ready = [prompt.model_copy(update={"split": "train", "failure": failed[prompt.id]}) for prompt in kept]
    return ready, len(failed) - len(kept)
