"""What a judge is asked, and what follows from its answers in both orders: places cancel, answers do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from heedful.judging.judge import EMPTY, NOTHING, TIE, Judge, Opinion, Pair, question
from heedful.records import Message

ASKED = (
    Message(role="user", content="How is it?"),
    Message(role="assistant", content="Hm."),
    Message(role="user", content="So?"),
)
PAIRS = [Pair(ASKED, "bad", "good"), Pair(ASKED, "good", "bad"), Pair(ASKED, "same", "same")]
Questions = Sequence[tuple[Message, ...]]


def sides(messages: tuple[Message, ...]) -> tuple[str, str]:
    """What stands as A and as B."""
    text = messages[-1].content
    return tuple(text.split(f"Answer {letter}:\n")[1].split("\n")[0] for letter in "AB")  # type: ignore[return-value]


def leaning(place: float, worth: float = 2.0) -> Judge:
    """Gives A so many nats for its place, and `worth` to a good answer."""

    def ask(questions: Questions) -> list[float]:
        return [place + worth * ((a == "good") - (b == "good")) for a, b in map(sides, questions)]

    return Judge("j", ask)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@pytest.mark.parametrize("place", [0.0, 3.0, -5.0])
def test_what_a_place_gets_whatever_stands_there_is_taken_away(place: float) -> None:
    good, bad, same = leaning(place)(PAIRS)
    assert (good.as_b, good.as_a) == (pytest.approx(sigmoid(2)), pytest.approx(sigmoid(2)))
    assert (bad.probability, bad.consistent) == (pytest.approx(sigmoid(-2)), True)
    assert (same.probability, same.score, same.consistent) == (pytest.approx(0.5), 0.5, False)


def test_a_judge_of_places_that_the_empty_question_does_not_show_has_a_tie_in_both_orders() -> None:
    def ask(questions: Questions) -> list[float]:
        return [0.0 if sides(q) == (NOTHING, NOTHING) else 4.0 for q in questions]

    for opinion in Judge("j", ask)(PAIRS):
        assert (opinion.as_b, opinion.as_a) == (pytest.approx(sigmoid(-4)), pytest.approx(sigmoid(4)))
        assert opinion.score == 0.5
        assert not opinion.consistent


def test_letters_without_probabilities_agree_or_tie() -> None:
    asked: list[tuple[str, str]] = []

    def ask(questions: Questions) -> list[float]:
        asked.extend(map(sides, questions))
        return [math.inf if a == "good" or b != "good" else -math.inf for a, b in map(sides, questions)]

    opinions = Judge("j", ask)(PAIRS)
    assert [(one.as_b, one.as_a, one.score) for one in opinions] == [(1, 1, 1), (0, 0, 0), (0, 1, 0.5)]
    assert asked == [("bad", "good"), ("good", "bad"), ("good", "bad"), ("bad", "good"), ("same", "same"), ("same", "same")]


def test_the_empty_question_is_asked_once_a_conversation() -> None:
    asked: list[tuple[str, str]] = []

    def ask(questions: Questions) -> list[float]:
        asked.extend(map(sides, questions))
        return [0.0] * len(questions)

    other = (Message(role="user", content="Else?"),)
    Judge("j", ask)([*PAIRS, Pair(other, "x", "y")])
    assert asked.count((NOTHING, NOTHING)) == 2


def test_near_one_half_is_a_tie() -> None:
    assert Opinion(0.5 + TIE, 0.5 + TIE - 0.001).score == 0.5
    assert Opinion(0.5 + TIE, 0.5 + TIE + 0.001).score == pytest.approx(0.5 + TIE + 0.0005)
    assert Opinion(0.1, 0.9).score == 0.5


def test_the_question_holds_the_whole_conversation_the_criterion_and_both_answers() -> None:
    (message,) = question(ASKED, "first one", " \n", "polite")
    text = message.content
    places = [
        text.index(part) for part in ("User: How is it?", "Assistant: Hm.", "User: So?", "first one", EMPTY, "more polite?")
    ]
    assert places == sorted(places)
    assert sides((message,)) == ("first one", EMPTY)
