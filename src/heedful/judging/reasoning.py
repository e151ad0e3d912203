"""Reasons before the letter: the judge writes what it thinks of both answers, and is then asked for A or B."""

from __future__ import annotations

import math
from collections.abc import Sequence

from heedful.judging.judge import Ask
from heedful.judging.writing import Request, Write
from heedful.records import Message

LETTER = "Reply with one letter, A or B."  # what `question` ends with
THINK = "Think it through in a few sentences before you choose. Do not name a letter yet."
CHOOSE = "So which answer is better, A or B? Reply with one letter."


class Reasoned:
    """An `Ask` that has reasons written first. temperature, max_new_tokens, seed: of the reasons.

    A question whose reasons cannot be had is NaN: invalid, never a tie. After its own reasons a model is nearly always sure, so
    whoever asks should hold the probabilities near one half (`Council.clamp`).
    """

    def __init__(self, write: Write, ask: Ask, *, max_new_tokens: int = 128, temperature: float = 0.7, seed: int = 0) -> None:
        self.write = write
        self.ask = ask
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.seed = seed

    def __call__(self, questions: Sequence[tuple[Message, ...]]) -> list[float]:
        asked = [thinking(messages) for messages in questions]
        replies = self.write(
            [Request(messages, self.seed, self.max_new_tokens, temperature=self.temperature) for messages in asked]
        )
        found = [math.nan] * len(questions)
        valid = [n for n, reply in enumerate(replies) if reply.valid]
        leans = self.ask([after(asked[n], replies[n].text) for n in valid]) if valid else ()
        for n, lean in zip(valid, leans, strict=True):
            found[n] = lean
        return found


def thinking(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The question with a call for reasons in place of that for a letter."""
    *before, last = messages
    return *before, Message(role="user", content=last.content.removesuffix(LETTER).rstrip() + "\n\n" + THINK)


def after(asked: Sequence[Message], reasons: str) -> tuple[Message, ...]:
    """The question for the letter, once the reasons are written."""
    return *asked, Message(role="assistant", content=reasons), Message(role="user", content=CHOOSE)
