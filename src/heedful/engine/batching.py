"""Grouping sequences of unequal length so that a batch fits into memory."""

from __future__ import annotations

from collections.abc import Sequence


def batches_by_tokens(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices grouped so that rows times the longest row stay within max_tokens; longest first, ties in order.

    A sequence longer than max_tokens gets a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def runs_within(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in order, cut into runs whose costs add up to at most the budget; a larger one gets a run of its own."""
    runs: list[list[int]] = []
    filled = 0
    for i, cost in enumerate(costs):
        if not runs or filled + cost > budget:
            runs.append([])
            filled = 0
        runs[-1].append(i)
        filled += cost
    return runs


def packed_batches(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Indices of responses grouped so that a batch has at most max_tokens, a prompt counting once for all its responses.

    Responses to a prompt stay together where they fit. Largest first.
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        members.setdefault(tuple(prompt), []).append(i)
    groups: list[tuple[int, list[int]]] = []
    for prompt, owned in members.items():
        for part in runs_within([len(responses[i]) for i in owned], max(1, max_tokens - len(prompt))):
            some = [owned[place] for place in part]
            groups.append((len(prompt) + sum(len(responses[i]) for i in some), some))
    order = sorted(range(len(groups)), key=lambda g: (-groups[g][0], groups[g][1][0]))
    costs = [groups[g][0] for g in order]
    return [[i for place in run for i in groups[order[place]][1]] for run in runs_within(costs, max_tokens)]
