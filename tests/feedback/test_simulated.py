"""Simulated labelers: what they write, that chance is theirs alone, and that only ranks tell who is careless."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.errors import ConfigError, DataError
from heedful.feedback.rubric import score
from heedful.feedback.simulated import ranked, simulate
from heedful.records import Completion, Judgement, Prompt, Sampling, parse_line, to_line

WHEN = "2026-01-01T00:00:00+00:00"
TEXTS = [
    "Open a window and let a fan run.",
    "Let a fan run and",
    "I am glad that you asked me.",
    "I can't help with that.",
    "the cat sat on " * 6,
]


def data(num_prompts: int = 12) -> tuple[list[Prompt], list[Completion]]:
    sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=40)
    prompts = [
        Prompt.model_validate(
            {
                "id": f"p{i:02}",
                "messages": [{"role": "user", "content": "My house is too hot."}],
                "rubric": {"mentions": ["fan", "window"], "avoids": []},
            }
        )
        for i in range(num_prompts)
    ]
    completions = [
        Completion(id=f"{p.id}-{k}", prompt_id=p.id, text=text, model="m", finish="stop", sampling=sampling)
        for p in prompts
        for k, text in enumerate(TEXTS)
    ]
    return prompts, completions


def test_every_labeler_judges_every_prompt() -> None:
    prompts, completions = data()
    found = simulate(prompts, completions, created_at=WHEN)
    assert [j.id for j in found] == [f"{p.id}/simulated-{n}" for p in prompts for n in range(1, 5)]
    for judgement in found:
        assert judgement.source == "simulated"
        assert judgement.created_at == WHEN
        assert set(judgement.ranks) | set(judgement.flagged) == {f"{judgement.prompt_id}-{k}" for k in range(5)}
        assert sorted(set(judgement.ranks.values())) == list(range(1, max(judgement.ranks.values()) + 1))
        assert parse_line(to_line(judgement), Judgement, "here") == judgement


def test_without_noise_the_careful_ones_follow_the_rubric_and_flag_what_says_nothing() -> None:
    prompts, completions = data()
    for judgement in simulate(prompts, completions, noise=0.0, tie_width=0.0, num_careless=0, created_at=WHEN):
        id_ = judgement.prompt_id
        assert judgement.ranks == {f"{id_}-0": 1, f"{id_}-1": 2, f"{id_}-2": 3, f"{id_}-3": 4}
        assert judgement.flagged == (f"{id_}-4",)


def test_noise_has_the_size_asked_for() -> None:
    # Two completions whose totals differ by d change places with probability Phi(-d / (noise * sqrt 2)).
    prompts, completions = data(400)
    first, second = (score(prompts[0], completions[k]).total for k in (1, 2))
    found = simulate(prompts, completions, noise=first - second, tie_width=0.0, num_labelers=1, num_careless=0, created_at=WHEN)
    swapped = sum(j.ranks[f"{j.prompt_id}-1"] > j.ranks[f"{j.prompt_id}-2"] for j in found) / len(found)
    assert swapped == pytest.approx(0.2398, abs=0.075)  # 3.5 standard errors of 400 draws


def test_the_last_ones_are_careless_and_blind_to_the_text() -> None:
    prompts, completions = data(100)
    found = simulate(prompts, completions, num_labelers=4, num_careless=2, created_at=WHEN)
    best: dict[str, int] = defaultdict(int)
    for judgement in found:
        best[judgement.labeler] += judgement.ranks.get(f"{judgement.prompt_id}-0") == 1
    assert min(best["simulated-1"], best["simulated-2"]) > 70
    assert max(best["simulated-3"], best["simulated-4"]) < 45  # one in five, and some ties
    blank = [c.model_copy(update={"text": f"{c.id} is another text altogether"}) for c in completions]
    again = simulate(prompts, blank, num_labelers=4, num_careless=2, created_at=WHEN)
    careless = [(a.ranks, a.flagged) for a in found if a.labeler in ("simulated-3", "simulated-4")]
    assert careless == [(a.ranks, a.flagged) for a in again if a.labeler in ("simulated-3", "simulated-4")]


def test_seconds_do_not_tell_who_is_careless() -> None:
    prompts, completions = data(200)
    seconds: dict[str, list[float]] = defaultdict(list)
    for judgement in simulate(prompts, completions, created_at=WHEN):
        assert judgement.seconds is not None
        seconds[judgement.labeler].append(judgement.seconds)
    means = {name: sum(values) / len(values) for name, values in seconds.items()}
    assert max(means.values()) / min(means.values()) < 1.08
    assert all(3 < value < 60 for values in seconds.values() for value in values)


def test_the_shown_order_is_shuffled_for_each_judgement() -> None:
    prompts, completions = data(100)
    found = simulate(prompts, completions, created_at=WHEN)
    first = [judgement.shown_order[0][-1] for judgement in found]
    assert all(first.count(str(k)) > 40 for k in range(5))  # 80 expected of 400
    assert len({judgement.shown_order for judgement in found if judgement.prompt_id == "p00"}) > 1


def test_neither_the_order_of_the_input_nor_what_else_is_judged_matters() -> None:
    prompts, completions = data()
    expected = simulate(prompts, completions, seed=3, created_at=WHEN)
    chance = random.Random(0)
    for _ in range(3):
        shuffled = chance.sample(prompts, len(prompts)), chance.sample(completions, len(completions))
        assert simulate(*shuffled, seed=3, created_at=WHEN) == expected
    alone = simulate(prompts[:1], completions[: len(TEXTS)], seed=3, created_at=WHEN)
    assert alone == expected[:4]
    assert simulate(prompts, completions, seed=4, created_at=WHEN) != expected


def test_one_completion_is_nothing_to_rank() -> None:
    prompts, completions = data(2)
    found = simulate(prompts, completions[: len(TEXTS) + 1], created_at=WHEN)
    assert {judgement.prompt_id for judgement in found} == {"p00"}
    assert simulate(prompts, [], created_at=WHEN) == []


@pytest.mark.parametrize(
    ("scores", "width", "expected"),
    [
        ({"a": 0.9, "b": 0.5, "c": 0.7}, 0.0, {"a": 1, "c": 2, "b": 3}),
        ({"a": 0.9, "b": 0.7, "c": 0.69, "d": 0.2}, 0.04, {"a": 1, "b": 2, "c": 2, "d": 3}),
        ({"a": 0.5, "b": 0.47, "c": 0.44}, 0.04, {"a": 1, "b": 1, "c": 2}),  # no chain
        ({"a": 0.5, "b": 0.5}, 0.0, {"a": 1, "b": 1}),
        ({"a": 0.5, "b": 0.25}, 0.25, {"a": 1, "b": 2}),  # closer than the width, not as far as
        ({}, 0.04, {}),
    ],
)
def test_ranked_by_hand(scores: dict[str, float], width: float, expected: dict[str, int]) -> None:
    assert ranked(scores, width) == expected


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 1)), st.floats(0, 0.5))
def test_ranks_are_dense_and_never_against_the_scores(scores: dict[str, float], width: float) -> None:
    ranks = ranked(scores, width)
    assert set(ranks.values()) == set(range(1, len(set(ranks.values())) + 1))
    for a in scores:
        for b in scores:
            if scores[a] > scores[b]:
                assert ranks[a] <= ranks[b]
            if scores[a] - scores[b] >= width > 0:
                assert ranks[a] < ranks[b]


@pytest.mark.parametrize(
    "options",
    [{"num_labelers": 0}, {"num_careless": 5}, {"num_careless": -1}, {"noise": -0.1}, {"tie_width": -0.1}],
)
def test_impossible_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="simulated labelers need"):
        simulate(*data(1), created_at=WHEN, **options)


def test_unknown_prompts_and_repeated_ids_are_named() -> None:
    prompts, completions = data(2)
    with pytest.raises(DataError, match=r"completion 'p01-0' answers prompt 'p01'"):
        simulate(prompts[:1], completions, created_at=WHEN)
    with pytest.raises(DataError, match=r"completion id 'p00-0' occurs more than once"):
        simulate(prompts, [*completions, completions[0]], created_at=WHEN)
    with pytest.raises(DataError, match=r"prompt id 'p00' occurs more than once"):
        simulate([*prompts, prompts[0]], completions, created_at=WHEN)
