"""A writer that answers by a function of the request, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from heedful.judging.calls import Usage
from heedful.judging.writing import Finished, Reply, Request

Script = Callable[[Request], Reply]


@dataclass
class ScriptedWriter:
    """most_words: of all turns of a request together; longer ones do not fit."""

    script: Script
    most_words: int = 10_000
    identity: str = "scripted"
    usage: Usage = field(default_factory=Usage)
    asked: list[Request] = field(default_factory=list)

    def fits(self, request: Request) -> bool:
        return sum(len(message.content.split()) for message in request.messages) <= self.most_words

    def __call__(self, requests: Sequence[Request], finished: Finished | None = None) -> list[Reply]:
        self.asked += requests
        replies = [self.script(request) for request in requests]
        if finished is not None and replies:
            finished(dict(enumerate(replies)))
        return replies


def role_of(request: Request) -> str:
    """What is asked for, by the last turn of a request of the constitution in `small_constitution`."""
    last = request.messages[-1].content
    return "revision" if "Write it anew" in last else "critique" if "What is wrong with it?" in last else "answer"
