"""Who looks on while a policy learns: what the loop and the policy gradient need of a hacking monitor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from heedful.models.reward import Answer

STOP = 2.0  # of hacking_level: 0 ok, 1 warn


class Watch(Protocol):
    """Everything that it measures goes to the metrics; among it `hacking_level`."""

    @property
    def begun(self) -> bool:
        """Whether it knows the reference's answers."""

    def begin(self, answers: Sequence[Answer], rewards: Sequence[float]) -> None:
        """The reference's answers to the held-out prompts, before the first evaluation."""

    def after_step(
        self, measured: Mapping[str, float], answers: Sequence[Answer], rewards: Sequence[float]
    ) -> dict[str, float]:
        """After each step: its figures, its rollouts' answers and their rewards."""

    def after_evaluation(self, answers: Sequence[Answer], rewards: Sequence[float]) -> dict[str, float]:
        """After each evaluation: the policy's answers to the held-out prompts."""

    def kl_factor(self) -> float:
        """What to multiply the KL coefficient by after an evaluation."""

    def signs(self) -> list[dict[str, Any]]:
        """What it holds against the run now: rows with `name`, `level` and `said`."""

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
