"""A feedback model opened as its settings say: the same for who writes critiques and who judges pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from heedful.config.feedback import FeedbackSection
from heedful.endpoint import Endpoint, token_in
from heedful.engine.device import choose_device, choose_dtype
from heedful.judging.calls import Calls, Usage, key_of
from heedful.judging.chat import ChatServer, RemoteWriter
from heedful.judging.judge import LETTERS, Ask
from heedful.judging.local import LocalLetters, LocalWriter, adapter_of
from heedful.judging.remote import RemoteLetters
from heedful.judging.writing import Journaled, Writer, plain
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.sources import resolve
from heedful.records import Message
from heedful.store import file_hash


class Letters(Protocol):
    """An `Ask` that tells of log-odds as they come, by the questions' places."""

    def __call__(
        self, questions: Sequence[tuple[Message, ...]], finished: Callable[[dict[int, float]], None] | None = None
    ) -> list[float]: ...


class JournaledLetters:
    """An `Ask` that asks nothing twice. A letter that could not be had (NaN) is asked for again by the next run."""

    def __init__(self, letters: Letters, identity: str, calls: Calls, usage: Usage) -> None:
        self.letters = letters
        self.identity = identity
        self.calls = calls
        self.usage = usage

    def __call__(self, questions: Sequence[tuple[Message, ...]]) -> list[float]:
        keys = [key_of(self.identity, LETTERS, plain(messages)) for messages in questions]
        leans, cached = self.calls.once(
            keys,
            lambda places, keep: self.letters([questions[place] for place in places], keep),
            pack=_packed,
            unpack=lambda value: {"A": math.inf, "B": -math.inf}[value] if isinstance(value, str) else float(value),
            tell=lambda _: None,
        )
        self.usage.cached += cached
        return leans


def _packed(lean: float) -> float | str | None:
    """JSON has no infinity: a letter alone is kept as the letter."""
    if math.isnan(lean):
        return None
    return lean if math.isfinite(lean) else LETTERS[lean < 0]


@dataclass(frozen=True)
class Feedback:
    """An opened feedback model. name: what it is called in records. usage: what it was asked in this run."""

    name: str
    writer: Writer
    usage: Usage
    open_letters: Callable[[], Ask]

    @cached_property
    def letters(self) -> Ask:
        """For a `Judge`. Raises ModelError for a local model whose tokenizer does not tell A and B apart."""
        return self.open_letters()


def open_feedback(
    section: FeedbackSection, calls: Path | None = None, *, strict: bool = False, token_setting: str = "--token-env"
) -> Feedback:
    """calls: a file of finished calls, so that a killed job repeats none. strict: a letter that cannot be had is an error.
    token_setting: what named the variable of the token, for the message.

    Raises ConfigError for an absent token, SourceError for what is no model.
    """
    usage = Usage(section.price_prompt, section.price_completion)
    journal = Calls(calls) if calls else None
    if section.remote:
        return _remote(section, journal, usage, strict, token_in(section.token_env, token_setting))
    device = choose_device()
    model = load_language_model(section.source, dtype=choose_dtype("auto", device), device=device)
    return local_feedback(
        model,
        adapter_of(model),
        name=section.source,
        identity=f"{section.source} {file_hash(resolve(section.source))}",
        batch_rows=section.batch_rows,
        calls=journal,
        usage=usage,
        strict=strict,
    )


def local_feedback(
    model: LanguageModel,
    adapter: str | None,
    *,
    name: str,
    identity: str,
    batch_rows: int = 32,
    calls: Calls | None = None,
    usage: Usage | None = None,
    strict: bool = False,
) -> Feedback:
    """A model that is in memory already. identity: what tells its weights from others', as a folder's hash."""
    usage = usage or Usage()
    identity = f"{identity} {model.dtype} {adapter or 'base'}"
    writer: Writer = LocalWriter(model, adapter, identity=identity, batch_rows=batch_rows, usage=usage)
    if calls is None:
        return Feedback(name, writer, usage, lambda: LocalLetters(model, strict=strict))
    journal = calls

    def letters() -> Ask:
        return JournaledLetters(LocalLetters(model, strict=strict), identity, journal, usage)

    return Feedback(name, Journaled(writer, journal), usage, letters)


def _remote(section: FeedbackSection, calls: Calls | None, usage: Usage, strict: bool, token: str) -> Feedback:
    endpoint = Endpoint(
        f"{section.source.rstrip('/')}/chat/completions",
        timeout_s=section.timeout_s,
        max_retries=section.max_retries,
        backoff_s=section.backoff_s,
        token=token,
        requests_a_minute=section.requests_a_minute,
    )
    server = ChatServer(endpoint, section.model, in_flight=section.in_flight, usage=usage)
    letters = RemoteLetters(server, strict=strict)
    if calls is None:
        return Feedback(section.model, RemoteWriter(server), usage, lambda: letters)
    journal = calls
    writer = Journaled(RemoteWriter(server), journal)
    return Feedback(section.model, writer, usage, lambda: JournaledLetters(letters, server.identity, journal, usage))
