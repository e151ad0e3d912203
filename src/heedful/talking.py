"""Answers of a base and a policy to one more message, in a process that keeps the models it loaded last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Said = tuple[str, str]  # role and content


class Answered(NamedTuple):
    """text: what was answered. finished: whether it ended by itself. version: of the policy that answered, or "base"."""

    text: str
    finished: bool
    version: str


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
    """By side, `base` and `aligned`. policy: a folder that heedful saved. A policy that was saved anew is loaded anew.

    Imports torch when it is first called, so that a server which hands it to a process of its own does not.
    """
    global _kept
    from heedful.engine.conversation import Conversation
    from heedful.records import Message

    about = Path(policy) / "heedful.json"
    named = (policy, base, about.stat().st_mtime_ns)
    if _kept is None or _kept[0] != named:
        _kept = None  # before others are loaded: there may be room for one pair alone
        _kept = named, Conversation(policy, base, temperature=temperature, max_new_tokens=max_new_tokens)
    talk: Conversation = _kept[1]
    talk.decode(temperature, max_new_tokens)
    side_of = {name: "aligned" if name == "aligned" else "base" for name in talk.speakers}
    said_before = {
        name: [Message.model_validate({"role": role, "content": text}) for role, text in histories.get(side, ())]
        for name, side in side_of.items()
    }
    talk.recall(said_before, seed)
    version = str(json.loads(about.read_text(encoding="utf-8")).get("policy_version", ""))
    return {
        side_of[name]: Answered(reply.text, reply.finished, version if side_of[name] == "aligned" else "base")
        for name, reply in talk.reply(said).items()
    }
