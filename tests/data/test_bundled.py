"""The bundled prompts keep what the rest relies on, and choosing among prompts is fair and repeatable."""

from __future__ import annotations

import random
from collections import Counter
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.data.bundled import choose, gather, load_bundled, split
from heedful.errors import DataError
from heedful.feedback.rubric import score
from heedful.records import Completion, Message, Prompt, Sampling

PROMPTS = load_bundled()
DIALOGUES = load_bundled(["dialogues"])
FROZEN_DRAW = 0.2637401861291554
FROZEN_CHOICE = ["helpful-008", "helpful-024", "harmless-029", "honest-062", "harmless-078", "honest-083"]
TAGS = {"helpful", "honest", "unanswerable", "harmless", "red-team", "safe", "looks-unsafe", "summarise"}


def test_how_many_there_are() -> None:
    assert (len(PROMPTS), len(DIALOGUES)) == (300, 40)
    assert len({prompt.id for prompt in PROMPTS + DIALOGUES}) == 340
    assert load_bundled(["prompts", "dialogues"]) == PROMPTS + DIALOGUES


def test_other_names_are_refused() -> None:
    with pytest.raises(DataError, match="no bundled prompts 'poems'; there are prompts, dialogues, red-team and look-alikes"):
        load_bundled(["poems"])


def test_no_question_is_asked_twice() -> None:
    asked = Counter(prompt.messages[-1].content.lower().strip(" .?!") for prompt in PROMPTS + DIALOGUES)
    assert asked.most_common(1)[0][1] == 1


def test_tags_are_known_and_one_of_the_three_values_comes_first() -> None:
    for prompt in PROMPTS:
        assert prompt.tags[0] in ("helpful", "honest", "harmless")
        assert set(prompt.tags) <= TAGS
        if prompt.tags[0] == "harmless":
            assert ("red-team" in prompt.tags) != ("safe" in prompt.tags)
    assert {prompt.tags[0] for prompt in DIALOGUES} == {"summarise"}


def test_every_tag_is_in_both_splits() -> None:
    counts = Counter((tag, prompt.split) for prompt in PROMPTS + DIALOGUES for tag in prompt.tags)
    for tag in {tag for tag, _ in counts}:
        assert counts[tag, "train"] > counts[tag, "heldout"] >= 1, tag
    assert len(split(PROMPTS, "train")) + len(split(PROMPTS, "heldout")) == 300
    assert len(split(PROMPTS, "train")) >= 200


def test_every_prompt_ends_with_the_user_and_has_a_rubric_that_can_be_scored() -> None:
    sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=40)
    for prompt in PROMPTS + DIALOGUES:
        assert prompt.messages[-1].role == "user"
        assert prompt.messages[-1].content.strip() == prompt.messages[-1].content != ""
        rubric = prompt.model_extra["rubric"] if prompt.model_extra else {}
        assert all(phrase == phrase.lower() for phrases in rubric.values() for phrase in phrases)
        assert not set(rubric["mentions"]) & set(rubric["avoids"])
        assert bool(rubric["mentions"]) or "red-team" in prompt.tags
        completion = Completion(id="c", prompt_id=prompt.id, text="Yes.", model="m", finish="stop", sampling=sampling)
        assert 0 < score(prompt, completion).total < 1


def test_a_reference_summary_scores_well() -> None:
    sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=80)
    for prompt in DIALOGUES:
        assert prompt.model_extra
        text = prompt.model_extra["reference"]
        completion = Completion(id="c", prompt_id=prompt.id, text=text, model="m", finish="stop", sampling=sampling)
        assert score(prompt, completion).total > 0.8, prompt.id


def made(tags: list[tuple[str, ...]]) -> list[Prompt]:
    return [Prompt(id=f"p{i}", messages=(Message(role="user", content="Hi"),), tags=t) for i, t in enumerate(tags)]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([(), ("a",), ("a", "b"), ("a", "b", "x"), ("b",)]), max_size=40),
    st.integers(0, 45),
    st.integers(0, 5),
)
def test_choose_keeps_shares_and_order(tags: list[tuple[str, ...]], count: int, seed: int) -> None:
    prompts = made(tags)
    chosen = choose(prompts, count, seed)
    assert len(chosen) == min(count, len(prompts))
    places = [prompts.index(prompt) for prompt in chosen]
    assert places == sorted(set(places))  # each once, in the given order
    assert choose(prompts, count, seed) == chosen
    for kind, size in Counter(t[:2] for t in tags).items():
        share = len(chosen) * size / len(prompts)
        assert abs(sum(prompt.tags[:2] == kind for prompt in chosen) - share) < 1


def test_choose_is_drawn_by_seed_and_each_prompt_is_as_likely() -> None:
    prompts = made([("a",)] * 6 + [("b",)] * 4)
    drawn = [tuple(p.id for p in choose(prompts, 5, seed)) for seed in range(400)]
    assert len(set(drawn)) > 60  # of 20 x 6
    counts = Counter(id_ for ids in drawn for id_ in ids)
    assert 160 < min(counts.values()) <= max(counts.values()) < 240  # 200 expected, standard deviation 10
    assert all(sum(int(id_[1:]) < 6 for id_ in ids) == 3 for ids in drawn)


def test_choose_by_largest_remainder_by_hand() -> None:
    prompts = made([("a",)] * 5 + [("b",)] * 3 + [("c",)] * 2)  # 3 of 10: 1.5, 0.9 and 0.6
    for seed in range(5):
        assert Counter(p.tags[0] for p in choose(prompts, 3, seed)) == {"a": 1, "b": 1, "c": 1}
        assert Counter(p.tags[0] for p in choose(prompts, 4, seed)) == {"a": 2, "b": 1, "c": 1}
        assert Counter(p.tags[0] for p in choose(prompts, 1, seed)) == {"a": 1}


def test_a_later_prompt_in_another_set_of_tags_changes_nothing_within_the_rest() -> None:
    a = made([("a",)] * 8)
    assert choose(a, 4, seed=7) == [p for p in choose([*a, *made([("b",)] * 8)], 8, seed=7) if p.tags == ("a",)]


@pytest.mark.parametrize("count", [16, 64, 128])
def test_bundled_prompts_keep_the_mix(count: int) -> None:
    train = split(PROMPTS, "train")
    chosen = choose(train, count, seed=0)
    for value in ("helpful", "honest", "harmless"):
        expected = count * sum(p.tags[0] == value for p in train) / len(train)
        assert abs(sum(p.tags[0] == value for p in chosen) - expected) <= 2  # two sets of tags, less than 1 each
    assert chosen != choose(train, count, seed=1)
    assert all(p.split == "train" for p in chosen)


def test_the_same_choice_tomorrow() -> None:
    """Frozen from Python 3.11; random.Random seeded with a text keeps its sequence across versions."""
    assert random.Random("0/('a',)").random() == pytest.approx(FROZEN_DRAW)
    assert [p.id for p in choose(PROMPTS, 6, seed=0)] == FROZEN_CHOICE


# Several files


def prompt(id_: str, text: str = "Hi", side: Literal["train", "heldout"] | None = None) -> Prompt:
    return Prompt(id=id_, messages=(Message(role="user", content=text),), split=side)


def test_a_prompt_in_several_files_counts_once() -> None:
    a, b, c = prompt("a"), prompt("b"), prompt("c")
    assert gather([("one.jsonl", [a, b]), ("two.jsonl", [b, c]), ("one.jsonl", [a, b])]) == [a, b, c]


def test_a_split_that_one_file_leaves_open_is_taken_from_the_other() -> None:
    known = prompt("a", side="heldout")
    for parts in ([prompt("a"), known], [known, prompt("a")], [prompt("a"), known, prompt("a")]):
        assert gather((f"{i}.jsonl", [part]) for i, part in enumerate(parts)) == [known]


def test_one_id_with_two_texts_names_the_id_and_both_files() -> None:
    sources = [("one.jsonl", [prompt("a"), prompt("b")]), ("two.jsonl", [prompt("b", "Bye")])]
    with pytest.raises(DataError, match=r"id 'b' stands for one text in one\.jsonl and for another in two\.jsonl; give"):
        gather(sources)


def test_one_prompt_in_two_splits_is_refused() -> None:
    sources = [("one.jsonl", [prompt("a")]), ("two.jsonl", [prompt("a", side="train")])]
    with pytest.raises(DataError, match=r"'a' has split 'train' in two\.jsonl and 'heldout' in three\.jsonl"):
        gather([*sources, ("three.jsonl", [prompt("a", side="heldout")])])
