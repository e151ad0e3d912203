"""The gate before a judge: what it says of pairs that people have judged. One that may be a coin is refused."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from heedful.errors import DataError
from heedful.evaluation.hhh import Item
from heedful.evaluation.statistics import pooled_interval, wilson
from heedful.judging.judge import Opinion, Pair
from heedful.judging.scored import PairJudge, log_odds
from heedful.records import Message, Preference

SUREST = 10.0  # nats; letters without probabilities are infinitely sure, and no slope mends that
STEEPEST = 20.0  # a slope above it says that the unit of a score was chosen badly


def measured(
    judge: PairJudge, preferences: Sequence[Preference], *, max_pairs: int = 0, seed: int = 0, num_resamples: int = 10_000
) -> dict[str, Any]:
    """How good a judge is on labelled pairs, with intervals that resample prompts. max_pairs: that many, drawn; 0 for all.

    accuracy: share of pairs where it prefers the chosen answer, a tie counting a half. order_consistency: share where both
    orders name the same answer; a judge of places alone has 0, one that weighs each answer alone has none (None). ties: share
    without a preference. invalid: pairs of which no opinion could be had; they are in none of the shares. slope: `slope_of`.
    Raises DataError where all pairs are ties, or no opinion could be had.
    """
    decided = drawn(preferences, max_pairs, seed)
    heard = judge([Pair(pair.prompt, pair.rejected, pair.chosen) for pair in decided])
    valid = [n for n, opinion in enumerate(heard) if not math.isnan(opinion.probability)]
    if not valid:
        raise DataError(f"the judge {judge.name} gave no readable opinion of any of {len(decided)} pairs; take another judge")
    opinions, prompts = [heard[n] for n in valid], [decided[n].prompt_id for n in valid]
    chance: dict[str, Any] = {"within": (0.0, 1.0), "num_resamples": num_resamples, "seed": seed}
    scores = [_score(opinion, judge) for opinion in opinions]
    right = [0.5 + 0.5 * float(np.sign(score - 0.5)) for score in scores]
    consistent = [float(one.consistent) for one in opinions]
    found = {
        "name": judge.name,
        "accuracy": pooled_interval(right, prompts, **chance).as_dict(),
        "order_consistency": pooled_interval(consistent, prompts, **chance).as_dict() if judge.ordered else None,
        "ties": scores.count(0.5) / len(scores),
        "invalid": len(heard) - len(valid),
        "slope": slope_of([opinion.probability for opinion in opinions]),
        "num_pairs": len(opinions),
        "num_prompts": len(set(prompts)),
    }
    return found | {"passed": not doubt(found)}


def _score(opinion: Opinion, judge: PairJudge) -> float:
    """The probability, or 0.5 for a tie. Of what weighs each answer alone, where no order adds chance, any lead counts."""
    return opinion.score if judge.ordered else opinion.probability


def drawn(preferences: Sequence[Preference], max_pairs: int, seed: int) -> list[Preference]:
    """The pairs that people have decided, at most so many. Raises DataError where there is none."""
    decided = [pair for pair in preferences if pair.probability > 0.5]
    if not decided:
        raise DataError("all labelled pairs are ties, which say nothing about a judge; give pairs that people have decided")
    if max_pairs and len(decided) > max_pairs:
        decided = [decided[n] for n in sorted(random.Random(seed).sample(range(len(decided)), max_pairs))]
    return decided


def slope_of(probabilities: Sequence[float]) -> float:
    """By how much to multiply a judge's log-odds so that its probabilities fit how often it is right, 0 to STEEPEST.

    probabilities: that the answer which people chose is better. Platt 1999 ("Probabilistic outputs for support vector
    machines") without an intercept, since a pair has no first side, and with his target (n + 1) / (n + 2) in place of 1, so
    that a judge who was always right is not taken to be infinitely sure. Below 1 the judge is surer than it is right.
    """
    x = np.clip([log_odds(p) for p in probabilities], -SUREST, SUREST)
    right = (len(x) + 1) / (len(x) + 2)

    def loss(slope: float) -> float:
        return float((right * np.logaddexp(0, -slope * x) + (1 - right) * np.logaddexp(0, slope * x)).sum())

    return float(minimize_scalar(loss, bounds=(0, STEEPEST), method="bounded").x)


def on_items(judge: PairJudge, items: Sequence[Item]) -> dict[str, Any]:
    """Accuracy on HHH items, a tie counting as wrong, with Wilson's interval: for each category and "all"."""
    pairs = [Pair((Message(role="user", content=item.question),), item.worse, item.better) for item in items]
    right = [_score(opinion, judge) > 0.5 for opinion in judge(pairs)]
    groups = {
        name: [n for n, item in enumerate(items) if item.category == name] for name in sorted({i.category for i in items})
    }
    return {
        name: {"num_items": len(rows), "accuracy": wilson(sum(right[n] for n in rows), len(rows)).as_dict()}
        for name, rows in (*groups.items(), ("all", list(range(len(items)))))
    }


def best_of(found: Sequence[dict[str, Any]]) -> str | None:
    """The name of the most accurate judge among those that passed; None where none did."""
    passed = [figures for figures in found if figures["passed"]]
    return str(max(passed, key=lambda figures: figures["accuracy"]["estimate"])["name"]) if passed else None


def told(figures: dict[str, Any]) -> str:
    """The figures of `measured` in a sentence."""
    ordered, invalid = figures["order_consistency"], figures["invalid"]
    return (
        f"The judge {figures['name']} agrees with people on {_percent(figures['accuracy'])} of {figures['num_pairs']} pairs of "
        f"{figures['num_prompts']} prompts; "
        + (f"both orders name the same answer in {_percent(ordered)}, " if ordered else "")
        + f"{100 * figures['ties']:.1f}% are ties"
        + (f", and of {invalid} more no opinion could be read." if invalid else ".")
    )


def _percent(interval: dict[str, Any]) -> str:
    shown = f"{100 * interval['estimate']:.1f}%"
    return shown if interval["low"] is None else f"{shown} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def doubt(figures: dict[str, Any]) -> str:
    """Why the judge is refused: its accuracy's interval does not lie above one half. Empty for one that is believed."""
    low, high = figures["accuracy"]["low"], figures["accuracy"]["high"]
    if low is not None and low > 0.5:
        return ""
    if low is None:
        return "One prompt leaves no interval: give labelled pairs of more prompts"
    if high < 0.5:
        return "That is worse than a coin: it prefers what people reject. Look at the criterion, or take another judge"
    return (
        "The interval holds 50%, so it may be a coin. Take a larger judge or another criterion; an estimate above 50% may "
        "also be told from it by more labelled pairs"
    )


def require_better_than_a_coin(figures: dict[str, Any]) -> None:
    """Raises DataError with the figures unless the accuracy's interval lies above one half."""
    if why := doubt(figures):
        raise DataError(f"{told(figures)} {why}")
