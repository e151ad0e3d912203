"""Answers of a base and a policy to one more message, in a process that keeps the models it loaded last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Said = tuple[str, str]  # role and content


class Answered(NamedTuple):
    """text: what was answered. finished: whether it ended by itself."""

    text: str
    finished: bool


_kept: tuple[tuple[Any, ...], Any] | None = None  # of which models, and the conversation that holds them


def answer(
    policy: str,
    base: str,
    histories: Mapping[str, Sequence[Said]],
    said: str,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> dict[str, Answered]:
    """By side, `base` and `aligned`; one side alone where the policy is a whole model that names no base.

    Imports torch when it is first called, so that a server which hands it to a process of its own does not.
    """
    global _kept
    from heedful.engine.conversation import Conversation
    from heedful.records import Message

    named = (policy, base, temperature, max_new_tokens)
    if _kept is None or _kept[0] != named:
        _kept = None  # before others are loaded: there may be room for one model alone
        _kept = named, Conversation(policy, base or None, temperature=temperature, max_new_tokens=max_new_tokens)
    talk: Conversation = _kept[1]
    talk.recall(
        {
            side: [Message.model_validate({"role": role, "content": text}) for role, text in turns]
            for side, turns in histories.items()
        },
        seed,
    )
    return {side: Answered(reply.text, reply.finished) for side, reply in talk.reply(said).items()}
