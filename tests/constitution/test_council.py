"""An ensemble over principles: who is asked what, how verdicts settle, and what cannot be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from heedful.constitution.council import Council
from heedful.constitution.principles import Constitution
from heedful.judging.judge import NOTHING, Pair
from heedful.records import Message

ASKED = (Message(role="user", content="So?"),)
PAIR = Pair(ASKED, "plain", "kind brief")
Questions = Sequence[tuple[Message, ...]]


def constitution(**changed: Any) -> Constitution:
    """Three principles that look for a word each; 'kind' weighs 3."""
    principles = [
        {"name": name, "critique": "c", "revision": "r", "question": f"Which is more {name}?", "weight": weight, "tags": [tag]}
        for name, weight, tag in (("kind", 3.0, "harmless"), ("brief", 1.0, "helpful"), ("true", 1.0, "honest"))
    ]
    return Constitution.model_validate({"name": "three", "principles": principles} | changed)


def looks_for_its_word(questions: Questions, worth: float = 2.0) -> list[float]:
    """Leans to the answer that holds the word the question asks for, with 5 nats for the place A."""
    found = []
    for (message,) in questions:
        a, b = (message.content.split(f"Answer {letter}:\n")[1].split("\n")[0] for letter in "AB")
        word = message.content.split("Which is more ")[1].split("?")[0]
        found.append(5.0 + worth * ((word in a) - (word in b)))
    return found


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_opinion_is_the_weighted_mean_of_probabilities_without_the_place() -> None:
    (found,) = Council("j", looks_for_its_word, constitution())([PAIR])
    assert found.by == {
        "kind": pytest.approx(sigmoid(2)),
        "brief": pytest.approx(sigmoid(2)),
        "true": pytest.approx(0.5),
    }
    assert found.probability == pytest.approx((4 * sigmoid(2) + 0.5) / 5)
    (turned,) = Council("j", looks_for_its_word, constitution())([Pair(ASKED, PAIR.second, PAIR.first)])
    assert turned.probability == pytest.approx(1 - found.probability)
    assert found.consistent


def test_the_value_that_comes_first_stands_alone_where_it_tells_answers_apart() -> None:
    first = constitution(first="harmless")
    pairs = [Pair(ASKED, "brief true", "kind"), Pair(ASKED, "plain", "brief")]
    kind, brief = Council("j", looks_for_its_word, first)(pairs)
    assert kind.probability == pytest.approx(sigmoid(2)), "though both others prefer the first"
    assert brief.probability == pytest.approx((3 * 0.5 + sigmoid(2) + 0.5) / 5)


def test_an_unreadable_letter_takes_its_principle_out_and_of_none_there_is_no_opinion() -> None:
    def mute(questions: Questions) -> list[float]:
        return [
            math.nan if "more kind" in q[0].content and NOTHING not in q[0].content else lean
            for q, lean in zip(questions, looks_for_its_word(questions), strict=True)
        ]

    (found,) = Council("j", mute, constitution())([PAIR])
    assert math.isnan(found.by["kind"])
    assert found.probability == pytest.approx((sigmoid(2) + 0.5) / 2)
    (none,) = Council("j", lambda questions: [math.nan] * len(questions), constitution())([PAIR])
    assert not none.valid


def test_some_principles_are_drawn_by_weight_and_the_same_for_a_turned_pair() -> None:
    council = Council("j", looks_for_its_word, constitution(), number=1)
    pairs = [Pair(ASKED, f"a{n}", f"b{n}") for n in range(300)]
    drawn = [council.principles_for(pair) for pair in pairs]
    assert drawn == [council.principles_for(Pair(ASKED, pair.second, pair.first)) for pair in pairs]
    counts = Counter(one.name for (one,) in drawn)
    assert counts["kind"] == pytest.approx(180, abs=30), "three fifths of the weight"
    assert min(counts["brief"], counts["true"]) > 30
    assert drawn != [Council("j", looks_for_its_word, constitution(), number=1, seed=1).principles_for(pair) for pair in pairs]
    (found,) = council([PAIR])
    assert len(found.by) == 1
    two = Council("j", looks_for_its_word, constitution(), number=2)
    assert {len(two.principles_for(pair)) for pair in pairs} == {2}


def test_only_principles_with_a_tag() -> None:
    (found,) = Council("j", looks_for_its_word, constitution(), tags=("helpful", "honest"))([PAIR])
    assert list(found.by) == ["brief", "true"]


def test_after_reasons_probabilities_are_held_near_one_half() -> None:
    (found,) = Council("j", looks_for_its_word, constitution(), clamp=0.1)([PAIR])
    assert found.by == {"kind": pytest.approx(0.6), "brief": pytest.approx(0.6), "true": pytest.approx(0.5)}
    assert found.probability == pytest.approx((4 * 0.6 + 0.5) / 5)
    (sure,) = Council("j", lambda questions: [math.inf, -math.inf] * (len(questions) // 2), constitution(), clamp=0.1)([PAIR])
    assert sure.probability == pytest.approx(0.4)


def test_progress_counts_principles_asked() -> None:
    told: list[tuple[int, int]] = []
    Council("j", looks_for_its_word, constitution(), told=lambda done, total: told.append((done, total)))([PAIR, PAIR])
    assert told == [(2, 6), (4, 6), (6, 6)]
