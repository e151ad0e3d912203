"""A small world to see tools at work in: products that a small model cannot compute, and transcripts of both ways to answer."""

from __future__ import annotations

import random
from typing import NamedTuple

from heedful.errors import ConfigError
from heedful.records import Message, Prompt

NUM_PRODUCTS = 90 * 90
TOOL, HEAD = "Thought: I calculate.\n", "Thought: I know.\n"


class Part(NamedTuple):
    """A piece of a transcript. written: by the policy; else by the environment."""

    text: str
    written: bool


def problems(count: int, *, seed: int, split: str | None = None) -> list[Prompt]:
    """Different products of two numbers of two digits, each with its right answer. Raises ConfigError for too many."""
    chance = random.Random(f"{seed}/problems")
    if count > NUM_PRODUCTS:
        raise ConfigError(
            f"there are {NUM_PRODUCTS} products of two numbers of two digits, and {count} were asked for; ask for fewer"
        )
    chosen = chance.sample(range(NUM_PRODUCTS), count)
    found = []
    for number in chosen:
        first, second = 10 + number // 90, 10 + number % 90
        asked = (Message(role="user", content=f"What is {first} * {second}?"),)
        found.append(
            Prompt.model_validate({"id": f"{first}x{second}", "messages": asked, "split": split, "answer": str(first * second)})
        )
    return found


def transcript(prompt: Prompt, *, with_tool: bool) -> list[Part]:
    """How a teacher would answer: by the calculator, or by heart."""
    answer = str((prompt.model_extra or {})["answer"])
    if not with_tool:
        return [Part(f"{HEAD}Answer: {answer}", True)]
    product = prompt.messages[-1].content.removeprefix("What is ").removesuffix("?")
    return [
        Part(f"{TOOL}Action: calculator[{product}]\n", True),
        Part(f"Observation: {answer}\n", False),
        Part(f"Answer: {answer}", True),
    ]
