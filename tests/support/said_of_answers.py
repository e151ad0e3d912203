"""Thumbs of somebody who likes what the reward likes, or the contrary, and what a run lists as its versions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from heedful.opinions import FOLDER, Opinions, add_opinions, voted
from heedful.records import Completion, Message, Prompt, read_jsonl


def liked(text: str) -> float:
    """As the reward of tests/updates: the share of letters of the alphabet's first half."""
    return sum(letter in "abcdefghijklm" for letter in text) / max(1, len(text))


def opinions_on(run: Path, *, as_the_reward: bool, labeler: str = "ada") -> Opinions:
    """A thumb for each answer of the run: whether the reward likes it more than most."""
    prompts = read_jsonl(run / "sample" / "prompts.jsonl", Prompt)
    completions = read_jsonl(run / "sample" / "completions.jsonl", Completion)
    middle = sorted(liked(completion.text) for completion in completions)[len(completions) // 2]
    votes = [voted(one, labeler, int((liked(one.text) > middle) == as_the_reward), "2026-01-01") for one in completions]
    return Opinions(prompts, completions, votes, [])


def say(run: Path, opinions: Opinions) -> None:
    add_opinions(run / FOLDER, opinions)


def listed(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "versions" / "versions.jsonl").read_text().splitlines()]


def one_answer() -> Any:
    """A conversation in which one answer was given, without a model."""
    history = [Message(role="user", content="Hi"), Message(role="assistant", content="Hello.")]
    return SimpleNamespace(
        speakers={"aligned": (SimpleNamespace(source="tiny"), "policy", None)},
        histories={"aligned": history},
        decoding=SimpleNamespace(temperature=0.0, max_new_tokens=8),
        last={"aligned": SimpleNamespace(finished=True)},
    )
