"""Whether a new version of a policy may take the old one's place: what paired intervals on held-out prompts speak against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heedful.evaluation.statistics import paired_difference


def objections(
    compared: Mapping[str, Mapping[str, Any]],
    guarded: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    prompts: Sequence[str],
    *,
    margin: float,
    num_resamples: int,
    seed: int,
) -> list[str]:
    """Sentences, each a reason to keep the old version; none where the evaluation holds.

    compared: `evaluation.compare.compare` of old and new; what has a better direction and is clearly worse speaks against it.
    guarded: rewards by name, of the old and the new answers, in the order of `prompts`. Their paired difference must be known
    well enough: its 95% interval may not reach further below 0 than margin standard deviations of the old version's rewards,
    nor lie below 0 as a whole.
    """
    found = []
    for name, (before, after) in guarded.items():
        change = paired_difference(before, after, prompts, prompts, num_resamples=num_resamples, seed=seed)
        allowed = margin * float(np.std(np.asarray(before)))
        if change.low is None or change.high is None or not math.isfinite(change.low):
            found.append(f"{name}: one held-out prompt leaves no interval; raise prompts.num_heldout")
        elif change.high < 0:
            found.append(f"{name} fell by {-change.estimate:.3g} (95% {change.low:.3g} to {change.high:.3g})")
        elif change.low < -allowed:
            found.append(
                f"{name} may have fallen: {change.estimate:+.3g} (95% {change.low:.3g} to {change.high:.3g}), and "
                f"update.margin allows {allowed:.3g}; more held-out prompts (prompts.num_heldout) make the interval narrower"
            )
    for name, row in compared.items():
        if row["verdict"] == "worse" and name not in guarded:
            change = row["difference"]
            found.append(
                f"{row['label']} became worse: {change['estimate']:+.3g} (95% {change['low']:.3g} to {change['high']:.3g})"
            )
    return found
