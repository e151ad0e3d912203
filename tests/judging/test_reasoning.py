"""Reasons before the letter: what is asked for, what the letter is asked after, and what is no opinion."""

from __future__ import annotations

import math
from collections.abc import Sequence

from heedful.judging.judge import Judge, Pair, question
from heedful.judging.reasoning import CHOOSE, LETTER, THINK, Reasoned
from heedful.judging.writing import Reply, Request
from heedful.records import Message

ASKED = (Message(role="user", content="So?"),)


def writes(requests: Sequence[Request]) -> list[Reply]:
    """Praises A, and is silent where an answer is 'mute'."""
    return [
        Reply("", problem="the reply is empty") if "mute" in one.messages[0].content else Reply(f"A is good, seed {one.seed}.")
        for one in requests
    ]


def test_the_letter_is_asked_after_the_reasons() -> None:
    seen: list[tuple[Message, ...]] = []

    def ask(questions: Sequence[tuple[Message, ...]]) -> list[float]:
        seen.extend(questions)
        return [1.5] * len(questions)

    asked = question(ASKED, "first", "second", "polite")
    assert Reasoned(writes, ask, seed=7)([asked]) == [1.5]
    ((first, reasons, last),) = seen
    assert first.content.endswith(THINK)
    assert LETTER not in first.content
    assert (reasons.role, reasons.content, last.content) == ("assistant", "A is good, seed 7.", CHOOSE)


def test_reasons_that_cannot_be_had_are_no_opinion_and_no_tie() -> None:
    judge = Judge("j", Reasoned(writes, lambda questions: [0.5] * len(questions)))
    heard, silent = judge([Pair(ASKED, "one", "two"), Pair(ASKED, "mute", "two")])
    assert heard.valid
    assert not silent.valid
    assert math.isnan(silent.probability)


def test_question_ends_with_what_is_taken_off() -> None:
    assert question(ASKED, "a", "b", "polite")[0].content.endswith(LETTER)
    assert LETTER not in THINK
