"""Section of the environment that a policy acts in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from heedful.config.section import Names, Section


class EnvironmentSection(Section):
    """What answers the policy while it acts: nothing (a prompt set), tools, retrieved passages, an opponent."""

    kind: Literal["prompts", "tools", "retrieval", "tictactoe"] = Field(
        "prompts", description="A prompt set with a reward, a task with tools, answering from passages, a game."
    )
    tools: Annotated[tuple[Literal["calculator", "search"], ...], Strict(False)] = Field(
        ("calculator",), min_length=1, description="Of tools: which the policy may call."
    )
    documents: Names = Field((), description="Text, markdown or JSONL files (field text) that the search looks into.")
    num_passages: int = Field(1, ge=1, le=20, description="Passages that a search gives.")
    instructions: bool = Field(True, description="Of tools: a system message says how they are called.")
    call_cost: float = Field(0.0, ge=0, description="Of tools: taken from the reward for each call.")
    opponent: Literal["random", "perfect"] = Field("random", description="Of tictactoe: how the other side plays.")
    max_turns: int = Field(4, ge=1, description="Of tools: times the policy may write before the episode is broken off.")
    max_observation_tokens: int = Field(64, ge=8, description="An observation is cut to so many tokens.")
    timeout_s: float = Field(2.0, gt=0, description="A tool's call that takes longer is ended.")
    memory_mb: int = Field(256, ge=64, description="Memory of a tool's process.")
