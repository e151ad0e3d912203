"""The figure that the product claims: the careless simulated labeler is found, and no careful one is accused."""

from __future__ import annotations

import random
from statistics import pstdev
from typing import Literal

import pytest

from heedful.feedback.consensus import consensus
from heedful.feedback.labelers import labeler_quality
from heedful.feedback.leave_one_out import LEVEL, leave_one_out
from heedful.feedback.pairs import preferences
from heedful.feedback.rubric import score
from heedful.feedback.simulated import simulate
from heedful.records import Completion, Prompt, Sampling

NUM_PROMPTS, NUM_COMPLETIONS = 60, 4
SEEDS = range(20)
WHEN = "2026-01-01T00:00:00+00:00"

TOPICS = {
    "My house is too hot.": ["fan", "window", "curtain", "shade"],
    "How do I keep bread fresh?": ["freez", "bag", "wrap", "box"],
    "What is the capital of Australia?": ["canberra", "capital territory"],
    "How do I kill a Python process?": ["pid", "ctrl", "terminat"],
    "Why is the sky blue?": ["scatter", "wavelength", "light", "air"],
    "How can I hack into my neighbor's wifi?": [],
}
# What a small model writes: now and then good, often cut off, astray or rambling. Filled with words of the topic.
SHAPES: list[tuple[str, Literal["stop", "length"]]] = [
    ("You could try {a}, and after that {b}, which helps most people.", "stop"),
    ("It depends on what you have at hand. Many people would go for {a} first.", "stop"),
    ("There are several things to think of. First, consider {a}. Second, you might want to look at", "length"),
    (
        "That is a great question, and I am happy to tell you about it. To begin with, it is important to know that the",
        "length",
    ),
    ("I would say that {a} and {a} and more of {a} is the way that {b} comes into it, since the", "length"),
    ("As I understand it, you would like to know more about this. Could you tell me what you have tried so far?", "stop"),
    ("I'm sorry, but I can't help with that.", "stop"),
    ("Here's how: first, you find the place, then you take what you need and", "length"),
    ("The answer is that the answer is that the answer is that the answer is that the answer", "length"),
    ("Yes.", "stop"),
]


def data(seed: int) -> tuple[list[Prompt], list[Completion]]:
    chance = random.Random(seed)
    sampling = Sampling(temperature=1, top_p=1, seed=seed, max_new_tokens=40)
    prompts, completions = [], []
    for number in range(NUM_PROMPTS):
        text, mentions = chance.choice(sorted(TOPICS.items()))
        prompt = Prompt.model_validate(
            {
                "id": f"p{number:02}",
                "messages": [{"role": "user", "content": text}],
                "tags": [] if mentions else ["harmless", "red-team"],
                "rubric": {"mentions": mentions, "avoids": [] if mentions else ["here's how", "first, you"]},
            }
        )
        prompts.append(prompt)
        for k in range(NUM_COMPLETIONS):
            shape, finish = chance.choice(SHAPES)
            words = [*(mentions or ["the router"]), "something else", "a friend"]
            filled = shape.format(a=chance.choice(words), b=chance.choice(words))
            completions.append(
                Completion(
                    id=f"p{number:02}-{k}", prompt_id=prompt.id, text=filled, model="m", finish=finish, sampling=sampling
                )
            )
    return prompts, completions


def test_the_texts_are_as_hard_to_tell_apart_as_real_ones() -> None:
    prompts, completions = data(0)
    of = {prompt.id: prompt for prompt in prompts}
    totals = [score(of[completion.prompt_id], completion).total for completion in completions]
    within = [pstdev(totals[i : i + NUM_COMPLETIONS]) for i in range(0, len(totals), NUM_COMPLETIONS)]
    assert 0.05 < sum(within) / len(within) < 0.2  # about the labelers' noise, so that careful ones differ too


def outcome(seed: int, **options: float) -> tuple[list[str], list[str]]:
    """Careless labelers missed, careful ones accused."""
    judgements = simulate(*data(seed), seed=seed, created_at=WHEN, **options)  # type: ignore[arg-type]
    found = list(leave_one_out(judgements).items())
    careful = len(found) - int(options.get("num_careless", 1))
    missed = [name for name, own in found[careful:] if not (own.suspect and own.q is not None and own.q < LEVEL)]
    return missed, [name for name, own in found[:careful] if own.suspect]


@pytest.mark.parametrize("noise", [0.04, 0.08])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_careless_labeler_is_found_and_no_careful_one(seed: int, noise: float) -> None:
    assert outcome(seed, noise=noise) == ([], [])


@pytest.mark.parametrize("options", [{"num_labelers": 3}, {"noise": 0.15}, {"num_labelers": 5, "num_careless": 2}])
def test_harder_cases_miss_seldom_and_accuse_no_careful_one(options: dict[str, float]) -> None:
    outcomes = [outcome(seed, **options) for seed in range(10)]
    assert [accused for _, accused in outcomes] == [[]] * 10
    assert sum(bool(missed) for missed, _ in outcomes) <= 2


def test_the_careless_labeler_answers_like_random_clicks() -> None:
    verdicts = [labeler_quality(simulate(*data(seed), seed=seed, created_at=WHEN))[-1].verdict for seed in SEEDS]
    assert verdicts.count("answers like random clicks") >= 16  # 95% expected; else luck made it look a little better


def test_the_pairs_follow_the_rubric_in_spite_of_the_careless_one() -> None:
    prompts, completions = data(0)
    judgements = simulate(prompts, completions, created_at=WHEN)
    of = {prompt.id: prompt for prompt in prompts}
    totals = {completion.id: score(of[completion.prompt_id], completion).total for completion in completions}
    pairs = preferences(prompts, completions, judgements, consensus(judgements))
    right = [totals[str(pair.chosen_id)] >= totals[str(pair.rejected_id)] for pair in pairs]
    assert len(pairs) > 150
    assert sum(right) / len(right) > 0.9
