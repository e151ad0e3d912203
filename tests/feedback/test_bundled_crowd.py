"""The demo's claim on the prompts that it runs on: one careless labeler of four is found, none of the careful ones accused."""

from __future__ import annotations

import random
import tomllib
from importlib.resources import files
from statistics import mean, pstdev
from typing import Literal

import pytest

from heedful.config import parse
from heedful.data.bundled import choose, load_bundled, split
from heedful.feedback.labelers import agreement, labeler_quality
from heedful.feedback.leave_one_out import LEVEL, leave_one_out
from heedful.feedback.refusals import is_degenerate
from heedful.feedback.rubric import score
from heedful.feedback.simulated import simulate
from heedful.records import Completion, Prompt, Sampling

DEMO = parse(tomllib.loads(files("heedful").joinpath("data/bundled/demo.toml").read_text(encoding="utf-8")), "demo.toml")
NUM_PROMPTS, NUM_COMPLETIONS = DEMO.prompts.num_train, DEMO.sample.num_completions
WHEN = "2026-01-01T00:00:00+00:00"
REFUSALS = ("I'm sorry, but I can't help with that.", "As an AI language model, I cannot provide", "I can't help with that.")
EMPTY_TALK = (
    "That is a great question, and I am happy to tell you more about it.",
    "There are many things to think of here. First of all, it is important to know that",
    "It depends on what you would like. Could you tell me what you have tried so far?",
    "Certainly! Here is what most people would say about this:",
)
GIBBERISH = (
    "the the the answer the the the answer the the the answer the the the answer",
    "?!",
    "and and and and then of a by",
)


def answer(prompt: Prompt, chance: random.Random) -> tuple[str, Literal["stop", "length"]]:
    """What a small model might write, from very good to nothing at all."""
    rubric = (prompt.model_extra or {})["rubric"]
    asked = prompt.messages[-1].content.split()[-8:]
    named = chance.sample(rubric["mentions"], min(2, len(rubric["mentions"]))) or ["a friend"]
    kind = chance.random()
    if kind < 0.3:
        return f"Think of {' and '.join(named)}, which {chance.choice(['helps', 'matters', 'is true'])} in most cases.", "stop"
    if kind < 0.5:
        return f"You could look at {named[0]}, and in the case of {' '.join(asked)} there are a few more things to", "length"
    if kind < 0.6 and rubric["avoids"]:
        return f"Sure, {chance.choice(rubric['avoids'])}, and then go on with {' '.join(asked)}.", "stop"
    if kind < 0.75:
        return chance.choice(REFUSALS), chance.choice(["stop", "length"])
    if kind < 0.95:
        text = chance.choice(EMPTY_TALK)
        return text, "stop" if text[-1] in ".?" else "length"
    return chance.choice(GIBBERISH), "length"


def sampled(seed: int) -> tuple[list[Prompt], list[Completion]]:
    prompts = choose(split(load_bundled(), "train"), NUM_PROMPTS, seed)
    chance = random.Random(seed)
    sampling = Sampling(temperature=1, top_p=1, seed=seed, max_new_tokens=40)
    completions = []
    for prompt in prompts:
        for number in range(NUM_COMPLETIONS):
            text, finish = answer(prompt, chance)
            completions.append(
                Completion(
                    id=f"{prompt.id}-{number}", prompt_id=prompt.id, text=text, model="m", finish=finish, sampling=sampling
                )
            )
    return prompts, completions


@pytest.mark.parametrize("seed", range(20))
def test_exactly_the_careless_labeler_is_suspect(seed: int) -> None:
    prompts, completions = sampled(seed)
    judgements = simulate(prompts, completions, seed=seed, created_at=WHEN)
    assert len(judgements) == 4 * NUM_PROMPTS
    qualities = {quality.labeler: quality for quality in labeler_quality(judgements)}
    assert [name for name, quality in qualities.items() if quality.suspect] == ["simulated-4"]
    for name, quality in qualities.items():
        assert quality.q is not None
        assert (quality.q < LEVEL) == (name == "simulated-4")
        if name != "simulated-4":
            assert (quality.z or 0) > 5
            assert quality.verdict == "agrees with the others"


def test_without_a_careless_labeler_somebody_is_seldom_suspect() -> None:
    """At level 0.05 one crowd in twenty holds a suspect by chance alone; the seeds are fixed."""
    alarms = 0
    for seed in range(20):
        prompts, completions = sampled(seed)
        careful = simulate(prompts, completions, num_careless=0, seed=seed, created_at=WHEN)
        alarms += any(found.suspect for found in leave_one_out(careful).values())
    assert alarms <= 3


def test_the_careless_one_lowers_the_agreement() -> None:
    prompts, completions = sampled(0)
    alphas = []
    for num_careless in (0, 1, 2):
        found = agreement(simulate(prompts, completions, num_careless=num_careless, created_at=WHEN))
        alphas.append(found["krippendorff_alpha"])
        assert found["krippendorff_alpha_low"] < alphas[-1] < found["krippendorff_alpha_high"]
    assert alphas[0] > alphas[1] + 0.1 > alphas[2] + 0.2


def test_the_careful_ones_flag_what_says_nothing_and_no_more() -> None:
    prompts, completions = sampled(0)
    empty = {completion.id for completion in completions if is_degenerate(completion.text)}
    assert 4 < len(empty) < 30
    for labeler in ("simulated-1", "simulated-2", "simulated-3"):
        own = [j for j in simulate(prompts, completions, created_at=WHEN) if j.labeler == labeler]
        assert {id_ for judgement in own for id_ in judgement.flagged} == empty


def test_the_completions_differ_about_as_much_as_a_small_models() -> None:
    """Else the claim would be won by completions that nobody could confuse."""
    prompts, completions = sampled(0)
    of = {prompt.id: prompt for prompt in prompts}
    totals = [score(of[completion.prompt_id], completion).total for completion in completions]
    groups = [totals[i : i + NUM_COMPLETIONS] for i in range(0, len(totals), NUM_COMPLETIONS)]
    assert 0.05 < mean(pstdev(group) for group in groups) < 0.25
