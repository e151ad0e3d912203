"""Contrastive scores: how much likelier an answer is under a good instruction than under a bad one.

A small model that cannot say which of two answers keeps to a principle may still write otherwise when it is told to keep to it.
The score compares two likelihoods of one text, so what makes a text likely anyhow (its length, common words) falls out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jinja2

from heedful.engine.scoring import response_logprobs
from heedful.errors import DataError
from heedful.judging.local import adapter_of
from heedful.judging.scored import Texts
from heedful.models.chat import Chat
from heedful.models.policy import LanguageModel
from heedful.records import Message

Place = Literal["system", "user"]
MARK = "heedful instruction"


@dataclass(frozen=True)
class Contrast:
    """Instructions under which an answer is weighed: one that asks for what is wanted, one for its opposite."""

    good: str
    bad: str
    weight: float = 1.0


def instructed(messages: Sequence[Message], instruction: str, place: Place = "system") -> tuple[Message, ...]:
    """The conversation under an instruction: as its system prompt, before one that it has, or before the first user turn.

    Raises DataError for a conversation without a user's turn where the instruction is to stand in it.
    """
    role = "system" if place == "system" else "user"
    at = next((n for n, message in enumerate(messages) if message.role == role), None)
    if at is None and place == "system":
        return Message(role="system", content=instruction), *messages
    if at is None:
        raise DataError(f"a conversation without a user's turn takes no instruction: {messages[0].content[:60]!r}")
    turn = Message(role=messages[at].role, content=f"{instruction}\n\n{messages[at].content}")
    return *messages[:at], turn, *messages[at + 1 :]


def place_of_instructions(chat: Chat) -> Place:
    """Where the chat template shows an instruction: as system prompt, or, for a template without one, in the user's turn."""
    if not chat.has_template:
        return "system"
    turns = [{"role": "system", "content": MARK}, {"role": "user", "content": "Hello"}]
    try:
        text = chat.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError:
        return "user"
    return "system" if MARK in text else "user"


class Contrastive:
    """A `Score`: the mean over contrasts, by weight, of log p(answer | good) - log p(answer | bad), in nats a token.

    The answer's end of text counts as a token of it. A score costs two passes over conversation and answer a contrast. NaN for
    a text that does not fit into the context. The model's adapter counts as part of it.
    """

    def __init__(self, model: LanguageModel, contrasts: Sequence[Contrast], *, place: Place | None = None) -> None:
        if not contrasts:
            raise DataError(
                "a contrastive score needs a good and a bad instruction, and no principle here has them; give principles the "
                "keys good and bad, or take another scorer"
            )
        self.model = model
        self.adapter = adapter_of(model)
        self.contrasts = list(contrasts)
        self.place: Place = place or place_of_instructions(model.chat)

    def __call__(self, texts: Texts) -> list[float]:
        found = [math.nan] * len(texts)
        read = [(self._prompts(messages), self.model.chat.response_ids(text, finished=True)) for messages, text in texts]
        fitting = [
            place
            for place, (prompts, answer) in enumerate(read)
            if max(map(len, prompts)) + len(answer) <= self.model.max_tokens
        ]
        answers = [read[place][1] for place in fitting]
        columns = []
        for prompts in zip(*(read[place][0] for place in fitting), strict=True):
            rows = response_logprobs(self.model, prompts, answers, adapter=self.adapter)
            columns.append([float(row.double().mean()) for row in rows])
        for place, means in zip(fitting, zip(*columns, strict=True), strict=True):
            found[place] = self._contrasted(means)
        return found

    def _prompts(self, messages: tuple[Message, ...]) -> list[list[int]]:
        """Tokens of the conversation under each instruction: good and bad of the first contrast, then those of the next."""
        instructions = [text for contrast in self.contrasts for text in (contrast.good, contrast.bad)]
        return [self.model.chat.prompt_ids(instructed(messages, text, self.place)) for text in instructions]

    def _contrasted(self, means: Sequence[float]) -> float:
        total = sum(contrast.weight for contrast in self.contrasts)
        pairs = zip(self.contrasts, means[::2], means[1::2], strict=True)
        return sum(contrast.weight * (good - bad) for contrast, good, bad in pairs) / total
