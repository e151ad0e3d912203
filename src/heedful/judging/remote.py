"""A model behind an OpenAI-compatible address as judge: probabilities of the letters where it gives them, else its letter."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from heedful.endpoint import Endpoint, EndpointError, PassingError
from heedful.errors import DataError
from heedful.judging.judge import LETTERS
from heedful.records import Message

TIMEOUT_S, MAX_RETRIES, BACKOFF_S = 30.0, 5, 1.0
PARALLEL = 8  # requests under way at a time
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
    reply that names neither letter is asked for again and is an error in the end, never a tie.
    """

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.endpoint = endpoint
        self.model = model
        self.soft: bool | None = None  # not known before the first reply

    def __call__(self, questions: Sequence[tuple[Message, ...]]) -> list[float]:
        waiting = list(questions)
        found = [self._first(waiting.pop(0))] if waiting and self.soft is None else []
        with ThreadPoolExecutor(PARALLEL) as pool:
            return found + list(pool.map(self._lean, waiting))

    def _first(self, messages: tuple[Message, ...]) -> float:
        try:
            self.soft = True
            self.soft = self.endpoint.post(self._body(messages), lambda reply: bool(_tokens(_choice(reply))))
        except EndpointError as error:
            if error.status not in (400, 422):  # else the server may only be saying that it gives no logprobs
                raise self._failed(error) from None
            self.soft = False
        return self._lean(messages)

    def _lean(self, messages: tuple[Message, ...]) -> float:
        try:
            return self.endpoint.post(self._body(messages), self._odds if self.soft else self._letter)
        except EndpointError as error:
            raise self._failed(error) from None

    def _failed(self, error: EndpointError) -> DataError:
        return DataError(f"the judge {self.model}: {error}; nothing was counted. Run the command again when it answers")

    def _body(self, messages: tuple[Message, ...]) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": [message.model_dump() for message in messages],
            "temperature": 0,
            "max_tokens": MAX_NEW_TOKENS,
        }
        return body | ({"logprobs": True, "top_logprobs": TOP} if self.soft else {})

    def _letter(self, reply: Any) -> float:
        return math.inf if self._said(reply) == LETTERS[0] else -math.inf

    def _said(self, reply: Any) -> str:
        text = _choice(reply)["message"]["content"]
        named = REPLY.match(text)
        if named is None:
            raise PassingError(f"{self.endpoint.url}: the reply names neither A nor B: {text[:200]!r}")
        return named[1].upper()

    def _odds(self, reply: Any) -> float:
        """Where the reply names its letter. The other one, if not among the likeliest, gets the most that it can have."""
        said = self._said(reply)
        for token, likeliest in _tokens(_choice(reply)):
            if _named(token) == said:
                masses = [sum(p for text, p in likeliest.items() if _named(text) == letter) for letter in LETTERS]
                most = min(*likeliest.values(), 1 - sum(likeliest.values()))
                a, b = (math.log(max(mass or most, LEAST)) for mass in masses)
                return a - b
        raise PassingError(f"{self.endpoint.url}: 'logprobs' lacks the letter {said} that the reply names")


def _choice(reply: Any) -> dict[str, Any]:
    """The first choice of a chat completion. Raises PassingError for anything else."""
    try:
        choice = reply["choices"][0]
        assert isinstance(choice["message"]["content"], str)
    except (KeyError, IndexError, TypeError, AssertionError):
        raise PassingError(f"the reply is no chat completion with a text: {str(reply)[:200]!r}") from None
    return dict(choice)


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
