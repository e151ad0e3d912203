"""A prompt set with a reward, written out as an environment, to hold the ordinary way of runs against the protocol."""

from __future__ import annotations

from collections.abc import Mapping

from heedful.engine.episodes import Step
from heedful.records import Message, Prompt


class PromptSet:
    """The completion is the only action, and ends the episode; rewards come from the configuration's terms."""

    def reset(self, prompt: Prompt, *, seed: int) -> tuple[tuple[Message, ...], Mapping[str, float]]:
        return prompt.messages, {}

    def step(self, action: str, *, cut: bool = False) -> Step:
        return Step("", 0.0, True, False, {})

    def ends_turn(self, written: str) -> bool:
        return False
