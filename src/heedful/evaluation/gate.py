"""The gate before an AI judge: what it says of pairs that people have judged. One that may be a coin is refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from heedful.errors import DataError
from heedful.evaluation.statistics import pooled_interval
from heedful.judging.judge import Judge, Pair
from heedful.records import Preference


def measured(
    judge: Judge, preferences: Sequence[Preference], *, max_pairs: int = 0, seed: int = 0, num_resamples: int = 10_000
) -> dict[str, Any]:
    """How good a judge is on labelled pairs, with intervals that resample prompts. max_pairs: that many, drawn; 0 for all.

    accuracy: share of pairs where it prefers the chosen answer, a tie counting a half. order_consistency: share where both
    orders name the same answer; a judge of places alone has 0. ties: share without a preference. Raises DataError where all
    pairs are ties.
    """
    decided = [pair for pair in preferences if pair.probability > 0.5]
    if not decided:
        raise DataError("all labelled pairs are ties, which say nothing about a judge; give pairs that people have decided")
    if max_pairs and len(decided) > max_pairs:
        decided = [decided[n] for n in sorted(random.Random(seed).sample(range(len(decided)), max_pairs))]
    opinions = judge([Pair(pair.prompt, pair.rejected, pair.chosen) for pair in decided])
    prompts = [pair.prompt_id for pair in decided]
    chance: dict[str, Any] = {"within": (0.0, 1.0), "num_resamples": num_resamples, "seed": seed}
    right = [0.5 if opinion.score == 0.5 else float(opinion.score > 0.5) for opinion in opinions]
    return {
        "name": judge.name,
        "accuracy": pooled_interval(right, prompts, **chance).as_dict(),
        "order_consistency": pooled_interval([float(one.consistent) for one in opinions], prompts, **chance).as_dict(),
        "ties": sum(one.score == 0.5 for one in opinions) / len(opinions),
        "num_pairs": len(decided),
        "num_prompts": len(set(prompts)),
    }


def told(figures: dict[str, Any]) -> str:
    """The figures of `measured` in a sentence."""
    return (
        f"The judge {figures['name']} agrees with people on {_percent(figures['accuracy'])} of {figures['num_pairs']} pairs of "
        f"{figures['num_prompts']} prompts; both orders name the same answer in {_percent(figures['order_consistency'])}, "
        f"{100 * figures['ties']:.1f}% are ties."
    )


def _percent(interval: dict[str, Any]) -> str:
    shown = f"{100 * interval['estimate']:.1f}%"
    return shown if interval["low"] is None else f"{shown} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def require_better_than_a_coin(figures: dict[str, Any]) -> None:
    """Raises DataError with the figures unless the accuracy's interval lies above one half."""
    low, high = figures["accuracy"]["low"], figures["accuracy"]["high"]
    if low is not None and low > 0.5:
        return
    if low is None:
        why = "One prompt leaves no interval: give labelled pairs of more prompts"
    elif high < 0.5:
        why = "That is worse than a coin: it prefers what people reject. Look at the criterion, or take another judge"
    else:
        why = (
            "The interval holds 50%, so it may be a coin. Take a larger judge or another criterion; an estimate above 50% may "
            "also be told from it by more labelled pairs"
        )
    raise DataError(f"{told(figures)} {why}")
