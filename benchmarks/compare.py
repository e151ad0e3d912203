"""From turns to figures: medians and ranges, ratios within pairs of turns, the check for the same work, table, regression gate.

Pure functions over what the turns wrote (turn.py); nothing here runs a model.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Turn = Mapping[str, Any]
Figures = dict[str, Any]

# Both sides multiply in bfloat16 (eight bits, half a percent a product) but round at different places: heedful's frozen
# weights are bfloat16, TRL's are the same numbers in float32 under autocast. Measured on hh: log-probs of answers 0.2% apart,
# 0.8% at most; losses 0.001. A wrong mask, a missing end of text or another adapter moves either much further.
LOGPROB_TOLERANCE = 0.02  # of the log-prob of an answer
LOSS_TOLERANCE = 0.02  # of the loss at step 0
REWARD_TOLERANCE = 0.05  # reward units: rewards of these heads spread over about 0.5
GATE_SHARE = 0.15

LINE = 80


def spread(values: Sequence[float]) -> Figures:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratios(heedful: Sequence[Turn], peer: Sequence[Turn]) -> list[float]:
    """Throughput of heedful over the peer's, one for each pair of turns that followed each other."""
    return [ours["rate"] / theirs["rate"] for ours, theirs in zip(heedful, peer, strict=True)]


def summarise(heedful: Sequence[Turn], peer: Sequence[Turn], unit: str) -> Figures:
    """The figures of one work; `peer` may be empty for work that only heedful does."""
    sides = {"heedful": heedful, "peer": peer}
    found: Figures = {"unit": unit}
    for name, turns in sides.items():
        if turns:
            rates, memory = ([turn[key] for turn in turns] for key in ("rate", "peak_memory_gb"))
            found[name] = {"rate": spread(rates), "peak_memory_gb": spread(memory), "turns": [dict(turn) for turn in turns]}
    if peer:
        found["ratio"] = spread(ratios(heedful, peer))
        pairs = zip(heedful, peer, strict=True)
        found["memory_ratio"] = spread([ours["peak_memory_gb"] / theirs["peak_memory_gb"] for ours, theirs in pairs])
    return found


def same_work(title: str, ours: Turn, theirs: Turn) -> list[str]:
    """What shows that the two sides did different work, in words with both numbers; empty when they did the same."""
    problems = []
    columns = [side[key] for key in ("num_tokens", "token_digest") for side in (ours, theirs)]
    if len({len(column) for column in columns}) > 1:
        counts = len(ours["num_tokens"]), len(theirs["num_tokens"])
        problems.append(f"{title}: heedful reports the tokens of {counts[0]} steps and the peer of {counts[1]}")
    pairs = zip(*columns, strict=False)
    for step, (our_count, their_count, our_digest, their_digest) in enumerate(pairs):
        if our_count != their_count:
            problems.append(f"{title}, step {step}: heedful read {our_count} tokens and the peer {their_count}")
        elif our_digest != their_digest:
            problems.append(
                f"{title}, step {step}: both read {our_count} tokens, but other ones: their hashes are {our_digest} and "
                f"{their_digest}"
            )
    if ours.get("new_tokens") != theirs.get("new_tokens"):
        problems.append(
            f"{title}: heedful wrote {ours.get('new_tokens')} new tokens a step and the peer {theirs.get('new_tokens')}"
        )
    problems += _apart(title, "loss at step 0", [ours.get("loss")], [theirs.get("loss")], LOSS_TOLERANCE, relative=False)
    for key, tolerance, relative in (("logprobs", LOGPROB_TOLERANCE, True), ("rewards", REWARD_TOLERANCE, False)):
        found = (side.get(key) or [] for side in (ours, theirs))
        problems += _apart(title, f"{key} of the fixed answers", *found, tolerance, relative=relative)
    return problems


def _apart(
    title: str, what: str, ours: Sequence[float | None], theirs: Sequence[float | None], tolerance: float, *, relative: bool
) -> list[str]:
    if len(ours) != len(theirs):
        return [f"{title}: heedful reports {len(ours)} numbers as {what} and the peer {len(theirs)}"]
    for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a is None and b is None:
            continue
        if a is None or b is None:
            return [f"{title}: only one side reports its {what} ({a} and {b})"]
        allowed = tolerance * max(1.0, abs(b)) if relative else tolerance
        if not math.isclose(a, b, rel_tol=0.0, abs_tol=allowed):
            where = f" (number {place})" if len(ours) > 1 else ""
            return [f"{title}: {what}{where} is {a:.4f} with heedful and {b:.4f} with the peer, more than {allowed:.4f} apart"]
    return []


def number(value: float) -> str:
    """Three digits, as few as say it."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(works: Mapping[str, Figures]) -> str:
    """80 columns: title, both rates with their unit, ratio with its range, memory ratio, share of the measured limit."""
    heading = f"{'':<20}{'heedful':>8}{'peer':>7} {'':<14}{'ratio':>17}{'memory':>7}{'limit':>6}"
    lines = [heading, "-" * LINE]
    for figures in works.values():
        ours = number(figures["heedful"]["rate"]["median"])
        theirs = number(figures["peer"]["rate"]["median"]) if "peer" in figures else ""
        ratio = memory = ""
        if "ratio" in figures:
            found = figures["ratio"]
            ratio = f"{number(found['median'])} [{number(found['low'])},{number(found['high'])}]"
            memory = f"{figures['memory_ratio']['median']:.2f}"
        share = f"{figures['share']['median']:.0%}" if "share" in figures else ""
        lines.append(f"{figures['title']:<20}{ours:>8}{theirs:>7} {figures['unit']:<14}{ratio:>17}{memory:>7}{share:>6}")
    return "\n".join(lines)


def slower(now: Mapping[str, Figures], before: Mapping[str, Figures], share: float = GATE_SHARE) -> list[str]:
    """What fell by more than `share` since `before`: ratios to the peers, and shares of the limit, in words.

    Works that either of the two lacks are passed over. Plain rates are not compared: they say how busy the machine was.
    """
    told = []
    for name, figures in now.items():
        for key, meaning in (("ratio", "times the peer's throughput"), ("share", "of the measured GEMM rate")):
            if key not in figures or key not in before.get(name, {}):
                continue
            old, new = before[name][key]["median"], figures[key]["median"]
            if new < (1 - share) * old:
                lost = 1 - new / old
                told.append(f"{figures['title']}: {new:.3g} {meaning}, {lost:.0%} less than the {old:.3g} of results.json")
    return told
