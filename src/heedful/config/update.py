"""Section of updates: how a policy learns from what people have said since."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from heedful.config.section import Section


class UpdateSection(Section):
    """What `heedful update` learns by, and when the new version takes the old one's place."""

    method: Literal["kto", "ppo"] = Field(
        "kto", description="KTO on votes and corrections, or a reward model retrained on all pairs and PPO."
    )
    replay: float = Field(0.5, ge=0, lt=1, description="Of KTO: share of old examples among all that are learned from.")
    margin: float = Field(
        0.1, ge=0, description="Standard deviations of the reward before that the interval may reach below no change."
    )
