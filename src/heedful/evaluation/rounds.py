"""Rounds beside each other: the same held-out prompts and seeds, each round against the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heedful.errors import DataError
from heedful.evaluation.compare import verdict
from heedful.evaluation.statistics import mean_interval, paired_difference


@dataclass(frozen=True)
class Measured:
    """What one policy answered. prompts: of each answer, by id. scores: by measure, a number an answer, more is better; None
    where the measure does not apply to the prompt.
    """

    name: str
    prompts: Sequence[str]
    scores: Mapping[str, Sequence[float | None]]


def compare_rounds(policies: Sequence[Measured], *, num_resamples: int, seed: int) -> list[dict[str, Any]]:
    """A row a policy, in order: each measure's mean, its paired difference to the policy before, and how often it wins over it.

    A win is a larger score of the n-th answer to a prompt, a tie half of one; the interval resamples prompts. The first policy
    has none before it. Raises DataError where two policies did not answer the same prompts equally often.
    """
    chances: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
    rows: list[dict[str, Any]] = []
    for place, policy in enumerate(policies):
        before = policies[place - 1] if place else None
        if before is not None and list(before.prompts) != list(policy.prompts):
            raise DataError(
                f"{policy.name} and {before.name} did not answer the same held-out prompts; run the stage evaluate of both "
                "again (heedful run --from evaluate)"
            )
        measures: dict[str, Any] = {}
        for name, scores in policy.scores.items():
            own = _counted(scores, policy.prompts)
            if not own:
                continue
            values, clusters = [value for value, _ in own], [prompt for _, prompt in own]
            found: dict[str, Any] = {"mean": mean_interval(values, clusters, **chances).as_dict()}
            if before is not None:
                earlier = [value for value, _ in _counted(before.scores[name], before.prompts)]
                difference = paired_difference(earlier, values, clusters, clusters, **chances)
                wins = [0.5 + 0.5 * ((new > old) - (new < old)) for new, old in zip(values, earlier, strict=True)]
                found |= {
                    "difference": difference.as_dict(),
                    "verdict": verdict(difference, "higher"),
                    "wins": mean_interval(wins, clusters, within=(0.0, 1.0), **chances).as_dict(),
                }
            measures[name] = found
        rows.append({"name": policy.name, "measures": measures})
    return rows


def _counted(scores: Sequence[float | None], prompts: Sequence[str]) -> list[tuple[float, str]]:
    return [(value, prompt) for value, prompt in zip(scores, prompts, strict=True) if value is not None]
