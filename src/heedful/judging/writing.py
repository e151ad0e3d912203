"""Feedback models that write: requests in, texts out. What cannot be used is an invalid reply, and is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from heedful.judging.calls import Calls, Usage, key_of
from heedful.records import Message

EMPTY = "the reply is empty"


@dataclass(frozen=True)
class Request:
    """What a model is asked to write. temperature 0 takes the likeliest token; equal requests get equal replies."""

    messages: tuple[Message, ...]
    seed: int
    max_new_tokens: int
    temperature: float = 0.7
    top_p: float = 1.0


@dataclass(frozen=True)
class Reply:
    """What it wrote. finish: "stop" when the model ended it, "length" when the limit did.

    problem: why there is no usable text, which is then "": the reply is empty, the request is longer than the context, or the
    server did not answer. Empty for a valid reply.
    """

    text: str
    finish: Literal["stop", "length"] = "stop"
    problem: str = ""

    @property
    def valid(self) -> bool:
        return not self.problem


# Hears of replies as they come, by their places among the requests: for progress, and for the journal.
Finished = Callable[[dict[int, Reply]], None]
# From requests to replies, in order. What a stage needs; tests may hand over any function.
Write = Callable[[Sequence[Request]], Sequence[Reply]]


class Writer(Protocol):
    """A `Write` that also tells of replies as they come. identity: what replies depend on beside the request.

    fits: whether the request leaves room for its answer in the context; True where only a server knows.
    """

    identity: str
    usage: Usage

    def fits(self, request: Request) -> bool: ...

    def __call__(self, requests: Sequence[Request], finished: Finished | None = None) -> list[Reply]: ...


def reply_of(text: str, *, finished: bool) -> Reply:
    """The text as a reply, invalid where there is none. finished: whether the model ended it."""
    finish: Literal["stop", "length"] = "stop" if finished else "length"
    text = text.strip()
    return Reply(text, finish) if text else Reply("", finish, EMPTY)


class Journaled:
    """A writer that asks nothing twice: replies are kept as they come, and are there again after a crash.

    A request that got no reply, because a server did not answer, is asked again by the next run.
    """

    def __init__(self, writer: Writer, calls: Calls) -> None:
        self.writer = writer
        self.calls = calls
        self.identity = writer.identity
        self.usage = writer.usage

    def fits(self, request: Request) -> bool:
        return self.writer.fits(request)

    def __call__(self, requests: Sequence[Request], finished: Finished | None = None) -> list[Reply]:
        keys = [key_of(self.identity, asdict(request) | {"messages": plain(request.messages)}) for request in requests]
        replies, cached = self.calls.once(
            keys,
            lambda places, keep: self.writer([requests[place] for place in places], keep),
            # What failed for want of an answer may be had another time; an empty answer is an answer.
            pack=lambda reply: asdict(reply) if reply.valid or reply.problem == EMPTY else None,
            unpack=lambda value: Reply(**value),
            tell=finished or (lambda _: None),
        )
        self.usage.cached += cached
        return replies


def plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation in JSON's types."""
    return [message.model_dump() for message in messages]
