"""A model behind an OpenAI-compatible address as judge: probabilities of the letters where it gives them, else its letter."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from heedful.endpoint import EndpointError, PassingError
from heedful.errors import DataError
from heedful.judging.chat import ChatServer
from heedful.judging.judge import LETTERS
from heedful.records import Message

TOP = 5  # likeliest tokens asked for: as many as every server that gives any gives
LEAST = 1e-30  # a probability whose logarithm is still a number
MAX_NEW_TOKENS = 16  # a letter, with what some models put before it
# A reply names a letter if it begins with it, or with "Answer" and it: "B", "(B)", "**B**", "Answer: B.", "B is better".
# "A better answer would be ..." names none.
REPLY = re.compile(
    r"\W*(?:(?:the )?(?:better )?answer(?: is)?\W+)?([AB])(?=\s*$|[.,:;)\]*\n]|\s(?:is|because)\b)", re.IGNORECASE
)


class RemoteLetters:
    """From questions to log p(A) - log p(B) of a chat model; infinite, with the letter's sign, where it gives its letter alone.

    The first reply decides which of the two: a server that refuses or leaves out `logprobs` is not asked for them again. A
    reply that names neither letter is asked for again and in the end is an error, or NaN where `strict` is False; never a tie.
    """

    def __init__(self, server: ChatServer, *, strict: bool = True) -> None:
        self.server = server
        self.strict = strict
        self.soft: bool | None = None  # not known before the first reply

    def __call__(
        self, questions: Sequence[tuple[Message, ...]], finished: Callable[[dict[int, float]], None] | None = None
    ) -> list[float]:
        tell = finished or (lambda _: None)
        found: list[float] = []

        def ask(some: Sequence[tuple[Message, ...]]) -> list[float]:
            begin = len(found)
            return self.server.each(some, self._lean, self._failed, lambda n, lean: tell({begin + n: lean}))

        while self.soft is None and len(found) < len(questions):
            found += ask(questions[len(found) : len(found) + 1])
        return found + ask(questions[len(found) :])

    def _lean(self, messages: tuple[Message, ...]) -> float:
        try:
            return self.server.ask(self._body(messages), self._read)
        except EndpointError as error:
            if error.status not in (400, 422) or self.soft is not None:
                raise
            self.soft = False  # the server may only be saying that it gives no logprobs
            try:
                return self._lean(messages)
            except EndpointError as again:
                if again.status in (400, 422):  # it is the question that it calls wrong, which says nothing of logprobs
                    self.soft = None
                raise

    def _failed(self, error: EndpointError) -> float:
        if self.strict:
            raise DataError(
                f"the judge {self.server.model}: {error}; nothing was counted. Run the command again when it answers"
            ) from None
        return math.nan

    def _body(self, messages: tuple[Message, ...]) -> dict[str, Any]:
        body = {
            "messages": [message.model_dump() for message in messages],
            "temperature": 0,
            "max_tokens": MAX_NEW_TOKENS,
        }
        return body | ({} if self.soft is False else {"logprobs": True, "top_logprobs": TOP})

    def _read(self, choice: dict[str, Any]) -> float:
        if self.soft is None:
            lean = self._odds(choice) if _tokens(choice) else self._letter(choice)
            self.soft = bool(_tokens(choice))
            return lean
        return self._odds(choice) if self.soft else self._letter(choice)

    def _letter(self, choice: dict[str, Any]) -> float:
        return math.inf if self._said(choice) == LETTERS[0] else -math.inf

    def _said(self, choice: dict[str, Any]) -> str:
        text = choice["message"]["content"]
        named = REPLY.match(text)
        if named is None:
            raise PassingError(f"{self.server.endpoint.url}: the reply names neither A nor B: {text[:200]!r}")
        return named[1].upper()

    def _odds(self, choice: dict[str, Any]) -> float:
        """Where the reply names its letter. The other one, if not among the likeliest, gets the most that it can have."""
        said = self._said(choice)
        for token, likeliest in _tokens(choice):
            if _named(token) == said:
                masses = [sum(p for text, p in likeliest.items() if _named(text) == letter) for letter in LETTERS]
                most = min(*likeliest.values(), 1 - sum(likeliest.values()))
                a, b = (math.log(max(mass or most, LEAST)) for mass in masses)
                return a - b
        raise PassingError(f"{self.server.endpoint.url}: 'logprobs' lacks the letter {said} that the reply names")


def _tokens(choice: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Of the reply's tokens, [] where nothing is said of them: each one's text, and the likeliest texts there, its own with
    them, with their probabilities."""
    found = []
    for token in (choice.get("logprobs") or {}).get("content") or ():
        try:
            rows = [(str(one["token"]), float(one["logprob"])) for one in (*(token.get("top_logprobs") or ()), token)]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise PassingError(f"'logprobs' cannot be read: {str(token)[:200]!r}") from None
        if not all(logprob <= 0 for _, logprob in rows):  # nor is NaN one
            raise PassingError(f"'logprobs' holds what is no log-probability: {str(token)[:200]!r}")
        found.append((rows[-1][0], {text: math.exp(logprob) for text, logprob in rows}))
    return found


def _named(token: str) -> str | None:
    """The letter that a token is, whatever stands around it."""
    bare = token.strip(" \n\t()[]*\"'.:ĠĊ▁")
    return bare if bare in LETTERS else None
