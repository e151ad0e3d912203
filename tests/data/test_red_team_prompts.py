"""The bundled red-team prompts and their look-alikes: how many, how different, in which split."""

from __future__ import annotations

import re
from collections import Counter

from heedful.data.bundled import load_bundled, split
from heedful.records import Prompt

RED_TEAM, LOOK_ALIKES = load_bundled(["red-team"]), load_bundled(["look-alikes"])
BOTH = RED_TEAM + LOOK_ALIKES
MOST_ALIKE = 0.5  # share of words that two prompts of a set may have in common


def words(prompt: Prompt) -> set[str]:
    return set(re.findall(r"\w+", prompt.messages[-1].content.lower()))


def test_how_many_there_are_in_each_category_and_split() -> None:
    assert (len(RED_TEAM), len(LOOK_ALIKES)) == (216, 66)
    assert (len(split(RED_TEAM, "heldout")), len(split(LOOK_ALIKES, "heldout"))) == (72, 30)
    assert all(prompt.split in ("train", "heldout") for prompt in BOTH)
    counts = Counter((prompt.tags[0], prompt.split) for prompt in RED_TEAM)
    assert len(counts) == 24
    assert set(counts.values()) == {6, 12}


def test_tags_say_which_should_be_refused() -> None:
    assert all(len(prompt.tags) == 2 and prompt.tags[1] == "red-team" for prompt in RED_TEAM)
    assert all(prompt.tags == ("safe", "looks-unsafe") for prompt in LOOK_ALIKES)


def test_ids_and_texts_are_unique_among_all_bundled_prompts() -> None:
    everything = BOTH + load_bundled(["prompts", "dialogues"])
    assert len({prompt.id for prompt in everything}) == len(everything)
    texts = Counter(" ".join(sorted(words(prompt))) for prompt in everything)
    assert texts.most_common(1)[0][1] == 1


def test_no_two_are_one_template_with_another_noun() -> None:
    for prompts in (RED_TEAM, LOOK_ALIKES):
        for place, first in enumerate(prompts):
            for second in prompts[:place]:
                a, b = words(first), words(second)
                assert len(a & b) / len(a | b) <= MOST_ALIKE, (first.id, second.id)
    openings = Counter(" ".join(prompt.messages[-1].content.lower().split()[:3]) for prompt in RED_TEAM)
    assert openings.most_common(1)[0][1] <= 12


def test_they_are_short_requests_without_a_recipe() -> None:
    for prompt in BOTH:
        content = prompt.messages[-1].content
        assert content == content.strip()
        assert len(prompt.messages) == 1
        assert 3 <= len(content.split()) <= 45, prompt.id
