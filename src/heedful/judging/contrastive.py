"""Contrastive scores: how much likelier an answer is under a good instruction than under a bad one.

A small model that cannot say which of two answers keeps to a principle may still write otherwise when it is told to keep to it.
The score compares two likelihoods of one text, so what makes a text likely anyhow (its length, common words) falls out.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import defaultdict
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
    """Instructions under which an answer is weighed: one that asks for what is wanted, and its opposite.

    bad: empty for the conversation as it stands, without any instruction.
    """

    good: str
    bad: str = ""
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


def drawn(weights: Sequence[float], number: int, *key: object) -> list[int]:
    """Places of `number` of these weights, each at most once, larger ones more often; the same for the same key. 0: all.

    The largest of u^(1/w) (Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir").
    """
    if not number or number >= len(weights):
        return list(range(len(weights)))
    draw = random.Random(hashlib.sha256(repr(key).encode()).digest())
    chances = sorted((draw.random() ** (1 / weight), place) for place, weight in enumerate(weights))
    return sorted(place for _, place in chances[-number:])


class Contrastive:
    """A `Score`: the mean over contrasts, by weight, of log p(answer | good) - log p(answer | bad), in nats a token.

    number: of contrasts a conversation, drawn by weight from a seed that its text gives, so that all answers to it meet the
    same; 0 for all. The answer's end of text counts as a token of it. A score costs two passes over conversation and answer a
    contrast, one where the conversation as it stands takes the bad one's place. NaN for a text that does not fit into the
    context. The model's adapter counts as part of it.
    """

    def __init__(
        self,
        model: LanguageModel,
        contrasts: Sequence[Contrast],
        *,
        number: int = 0,
        seed: int = 0,
        place: Place | None = None,
    ) -> None:
        if not contrasts:
            raise DataError(
                "a contrastive score needs a good and a bad instruction, and no principle here has them; give principles the "
                "keys good and bad, or take another scorer"
            )
        self.model = model
        self.adapter = adapter_of(model)
        self.contrasts = list(contrasts)
        self.number = number
        self.seed = seed
        self.place: Place = place or place_of_instructions(model.chat)

    def __call__(self, texts: Texts) -> list[float]:
        found = [0.0] * len(texts)
        passes: list[tuple[int, float, list[int], list[int]]] = []  # whose it is, what it counts, prompt and answer
        for n, (messages, text) in enumerate(texts):
            answer = self.model.chat.response_ids(text, finished=True)
            shares = self._shares(messages)
            prompts = {instruction: self._prompt(messages, instruction) for instruction in shares}
            if max(map(len, prompts.values())) + len(answer) > self.model.max_tokens:
                found[n] = math.nan
            else:
                passes += [(n, share, prompts[instruction], answer) for instruction, share in shares.items()]
        reads = [prompt for _, _, prompt, _ in passes], [answer for _, _, _, answer in passes]
        for (n, share, _, _), row in zip(passes, response_logprobs(self.model, *reads, adapter=self.adapter), strict=True):
            found[n] += share * float(row.double().mean())
        return found

    def _shares(self, messages: Sequence[Message]) -> dict[str, float]:
        """What each instruction's log-probability counts, below 0 for bad ones; each is read once."""
        own = self.contrasts_for(messages)
        total = sum(contrast.weight for contrast in own)
        found: dict[str, float] = defaultdict(float)
        for contrast in own:
            found[contrast.good] += contrast.weight / total
            found[contrast.bad] -= contrast.weight / total
        return found

    def contrasts_for(self, messages: Sequence[Message]) -> list[Contrast]:
        """Those that answers to the conversation are weighed under."""
        weights = [contrast.weight for contrast in self.contrasts]
        return [self.contrasts[place] for place in drawn(weights, self.number, self.seed, tuple(messages))]

    def _prompt(self, messages: Sequence[Message], instruction: str) -> list[int]:
        return self.model.chat.prompt_ids(instructed(messages, instruction, self.place) if instruction else messages)
