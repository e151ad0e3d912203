"""A prompt set with a reward, as an environment: the completion is the only action, and ends the episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from heedful.engine.episodes import Step
from heedful.records import Message, Prompt


class PromptSet:
    """judge: the reward of a conversation and what was said to it; none where rewards come from elsewhere."""

    def __init__(self, judge: Callable[[tuple[Message, ...], str], float] | None = None) -> None:
        self.judge = judge
        self.messages: tuple[Message, ...] = ()

    def reset(self, prompt: Prompt, *, seed: int) -> tuple[tuple[Message, ...], Mapping[str, float]]:
        self.messages = prompt.messages
        return self.messages, {}

    def step(self, action: str, *, cut: bool = False) -> Step:
        return Step("", self.judge(self.messages, action) if self.judge is not None else 0.0, True, False, {})

    def ends_turn(self, written: str) -> bool:
        return False
