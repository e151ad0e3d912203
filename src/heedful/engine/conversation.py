"""Talking to a model, or to two side by side over one base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from heedful.engine.device import choose_device, choose_dtype
from heedful.engine.generation import Decoding, sample
from heedful.errors import ConfigError
from heedful.models.ilql import Reweight, load_policy
from heedful.models.policy import POLICY, LanguageModel
from heedful.records import Message


class Reply(NamedTuple):
    """text: what was answered. finished: whether it ended by itself."""

    text: str
    finished: bool


# The place of the best reply to what was said.
Choose = Callable[[Sequence[Message], Sequence[Reply]], int]


class Conversation:
    """Keeps one history for each model. compare: a second model; the aligned one's own base is not loaded twice.

    best_of: replies that each draws, of which `choose` picks the one that is given. Raises ConfigError for several at
    temperature 0, where they would be one.
    """

    def __init__(
        self,
        model: str,
        compare: str | None = None,
        *,
        temperature: float = 0.0,
        max_new_tokens: int = 80,
        seed: int = 0,
        best_of: int = 1,
        choose: Choose | None = None,
    ) -> None:
        if best_of > 1 and temperature == 0:
            raise ConfigError(f"the best of {best_of} answers needs a temperature above 0, at which they differ; try 0.7")
        self.best_of, self.choose = best_of, choose
        device = choose_device()
        dtype = choose_dtype("auto", device)
        first, reweight = load_policy(model, dtype=dtype, device=device)
        adapter = POLICY if POLICY in first.adapters else None
        # name -> model, which adapter speaks, and how its logits are re-weighted
        self.speakers: dict[str, tuple[LanguageModel, str | None, Reweight | None]] = {
            "aligned" if adapter or reweight else model: (first, adapter, reweight)
        }
        if compare is not None:
            if (adapter or reweight) and compare == first.source:
                self.speakers = {"base": (first, None, None)} | self.speakers
            else:
                other, weigh = load_policy(compare, dtype=dtype, device=device)
                self.speakers = {compare: (other, POLICY if POLICY in other.adapters else None, weigh)} | self.speakers
        self.decode(temperature, max_new_tokens)
        self.generator = torch.Generator().manual_seed(seed)
        self.histories: dict[str, list[Message]] = {}
        self.reset()

    def decode(self, temperature: float, max_new_tokens: int) -> None:
        """How the next answers are drawn. Raises ConfigError where no message would fit beside so long an answer."""
        for loaded, _, _ in self.speakers.values():
            least = len(loaded.chat.prompt_ids([Message(role="user", content="")]))
            if loaded.max_tokens - max_new_tokens <= least:
                raise ConfigError(
                    f"max_new_tokens = {max_new_tokens} leaves no room for a message: the context of {loaded.source} holds "
                    f"{loaded.max_tokens} tokens, what is said and the answer together; ask for at most "
                    f"{max(1, loaded.max_tokens - least - 1)}"
                )
        self.decoding = Decoding(temperature, 1.0, max_new_tokens)

    def reset(self) -> None:
        """Forgets what was said."""
        self.histories = {name: [] for name in self.speakers}
        self.last: dict[str, Reply] = {}  # of each speaker

    def recall(self, histories: Mapping[str, Sequence[Message]], seed: int) -> None:
        """Goes on from these histories, by speaker; whoever is not named has heard nothing. seed: of the next draws."""
        self.histories = {name: list(histories.get(name, ())) for name in self.speakers}
        self.generator.manual_seed(seed)

    def answer(self, said: str) -> dict[str, str]:
        """The texts of `reply`."""
        return {name: reply.text for name, reply in self.reply(said).items()}

    def reply(self, said: str) -> dict[str, Reply]:
        """Each speaker's answer to the message, which joins its history. The oldest turns give way to the context's length."""
        replies = {}
        for name, (model, adapter, reweight) in self.speakers.items():
            history = [*self.histories[name], Message(role="user", content=said)]
            ids = model.chat.prompt_ids(history)
            room = model.max_tokens - self.decoding.max_new_tokens
            while len(ids) > room and len(history) > 1:
                history = history[2:]
                ids = model.chat.prompt_ids(history)
            drawn = sample(
                model,
                [ids[-room:]],
                self.decoding,
                adapter=adapter,
                samples_per_prompt=self.best_of,
                generator=self.generator,
                reweight=reweight,
            )
            found = [Reply(model.chat.text(one.ids), finished=one.ids[-1] in model.chat.eos_ids) for one in drawn[0]]
            replies[name] = found[self.choose(history, found) if self.choose else 0]
            self.histories[name] = [*history, Message(role="assistant", content=replies[name].text)]
        self.last = replies
        return replies
