"""A local model that gives feedback: the log-probabilities of the letters A and B as its answer, and texts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch

from heedful.engine import scoring
from heedful.engine.device import choose_device, choose_dtype
from heedful.engine.generation import Decoding, sample
from heedful.errors import DataError, ModelError
from heedful.judging.calls import Usage
from heedful.judging.judge import LETTERS
from heedful.judging.writing import Finished, Reply, Request, reply_of
from heedful.models.policy import POLICY, LanguageModel, load_language_model
from heedful.records import Message

QUESTIONS = 64  # between two that are kept; more than a pass over a laptop's model holds
BATCH_ROWS = 32


class LocalLetters:
    """From questions to log p(A) - log p(B) of a language model, its adapter included.

    A question beyond the context is an error, or NaN where `strict` is False.
    """

    def __init__(self, model: LanguageModel, *, strict: bool = True) -> None:
        self.model = model
        self.strict = strict
        self.letters = [model.chat.response_ids(letter, finished=False) for letter in LETTERS]
        if len({len(ids) for ids in self.letters}) > 1 or self.letters[0] == self.letters[1]:
            raise ModelError(f"{model.source}: its tokenizer does not tell the letters A and B apart; take another judge")

    def __call__(
        self, questions: Sequence[tuple[Message, ...]], finished: Callable[[dict[int, float]], None] | None = None
    ) -> list[float]:
        if finished is None:
            return self._leans(questions)
        leans: list[float] = []
        for first in range(0, len(questions), QUESTIONS):
            some = self._leans(questions[first : first + QUESTIONS])
            finished(dict(enumerate(some, start=first)))
            leans += some
        return leans

    def _leans(self, questions: Sequence[tuple[Message, ...]]) -> list[float]:
        prompts, answers = [], []
        leans = [math.nan] * len(questions)
        read = []
        for place, messages in enumerate(questions):
            ids = self.model.chat.prompt_ids(messages)
            if len(ids) + len(self.letters[0]) <= self.model.max_tokens:
                read.append(place)
                prompts += [ids, ids]
                answers += self.letters
            elif self.strict:
                shown = " ".join(messages[-1].content.split())[60:130]
                raise DataError(
                    f"a question to the judge has {len(ids)} tokens ('...{shown}...'); {self.model.source} reads "
                    f"{self.model.max_tokens}. Leave that prompt out, or take a judge that reads more"
                )
        if not read:
            return leans
        rows = scoring.response_logprobs(self.model, prompts, answers, adapter=adapter_of(self.model))
        sums = [float(row.double().sum()) for row in rows]
        for place, a, b in zip(read, sums[::2], sums[1::2], strict=True):
            leans[place] = a - b
        return leans


def local_letters(source: str) -> LocalLetters:
    """source: a folder, a hub id, or an alias."""
    device = choose_device()
    return LocalLetters(load_language_model(source, dtype=choose_dtype("auto", device), device=device))


class LocalWriter:
    """A language model that writes, with an adapter or without.

    identity: what replies depend on beside the request, as a folder's hash. Each request draws from its own seed, so a reply
    depends neither on the requests beside it nor on where an earlier run was interrupted (beyond the last bits, which the
    shape of a matrix product decides). A request that leaves no room for its answer gets an invalid reply that says so.
    """

    def __init__(
        self,
        model: LanguageModel,
        adapter: str | None,
        *,
        identity: str,
        batch_rows: int = BATCH_ROWS,
        usage: Usage | None = None,
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.identity = identity
        self.batch_rows = batch_rows
        self.usage = usage or Usage()

    def fits(self, request: Request) -> bool:
        return self._tokens(request) is not None

    def _tokens(self, request: Request) -> list[int] | None:
        ids = self.model.chat.prompt_ids(request.messages)
        return ids if len(ids) + request.max_new_tokens <= self.model.max_tokens else None

    def __call__(self, requests: Sequence[Request], finished: Finished | None = None) -> list[Reply]:
        tell = finished or (lambda _: None)
        found: list[Reply | None] = [None] * len(requests)
        groups: dict[Decoding, list[tuple[int, list[int]]]] = defaultdict(list)
        for place, request in enumerate(requests):
            ids = self._tokens(request)
            if ids is None:
                found[place] = Reply("", problem=self._too_long(request))
            else:
                decoding = Decoding(request.temperature, request.top_p, request.max_new_tokens)
                groups[decoding].append((place, ids))
        if refused := {place: reply for place, reply in enumerate(found) if reply is not None}:
            self.usage.invalid += len(refused)
            tell(refused)
        for decoding, group in groups.items():
            group.sort(key=lambda one: (-len(one[1]), one[0]))  # prompts of like length are computed side by side
            for first in range(0, len(group), self.batch_rows):
                batch = group[first : first + self.batch_rows]
                replies = self._write(decoding, {place: (ids, requests[place].seed) for place, ids in batch})
                for place, reply in replies.items():
                    found[place] = reply
                tell(replies)
        return [reply for reply in found if reply is not None]

    def _write(self, decoding: Decoding, batch: dict[int, tuple[list[int], int]]) -> dict[int, Reply]:
        answers = sample(
            self.model,
            [ids for ids, _ in batch.values()],
            decoding,
            adapter=self.adapter,
            samples_per_prompt=1,
            generator=[torch.Generator().manual_seed(seed) for _, seed in batch.values()],
        )
        replies = {}
        for (place, (ids, _)), (answer,) in zip(batch.items(), answers, strict=True):
            replies[place] = reply_of(self.model.chat.text(answer.ids), finished=self.model.chat.finished(answer.ids))
            self.usage.calls += 1
            self.usage.prompt_tokens += len(ids)
            self.usage.completion_tokens += len(answer.ids)
            self.usage.invalid += not replies[place].valid
        return replies

    def _too_long(self, request: Request) -> str:
        count = len(self.model.chat.prompt_ids(request.messages))
        shown = " ".join(request.messages[-1].content.split())[:60]
        return (
            f"the request has {count} tokens ('{shown}...') and leaves no room for an answer of {request.max_new_tokens}: "
            f"{self.model.source} reads {self.model.max_tokens}"
        )


def adapter_of(model: LanguageModel) -> str | None:
    """The adapter that a folder brought with it."""
    return POLICY if POLICY in model.adapters else None
