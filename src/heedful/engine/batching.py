"""Grouping sequences of unequal length so that little is padded."""

# B batch, S prompt + response tokens, N response tokens of a batch laid end to end

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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


@dataclass(frozen=True)
class Sequences:
    """Prompts with their responses, padded on the right.

    ids_BS, mask_BS: tokens, True on real ones. rows_N, places_N: for each response token the row it stands in and the
    place whose hidden state predicts it (the one before it). targets_N: its id.
    """

    ids_BS: Tensor
    mask_BS: Tensor
    rows_N: Tensor
    places_N: Tensor
    targets_N: Tensor

    def predicting(self, hidden_BSD: Tensor) -> Tensor:
        """Hidden states (N, D) from which each response token is predicted."""
        return hidden_BSD[self.rows_N, self.places_N]


def pad(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, pad_id: int, device: torch.device
) -> Sequences:
    """Sequences of prompt + response. Every prompt needs a token at least; a response may be empty."""
    width = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))
    ids_BS = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask_BS = torch.zeros(len(prompts), width, dtype=torch.bool)
    rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        tokens = [*prompt, *response]
        ids_BS[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        mask_BS[row, : len(tokens)] = True
        rows += [row] * len(response)
        places += range(len(prompt) - 1, len(tokens) - 1)
        targets += response
    flat = [torch.tensor(part, dtype=torch.long, device=device) for part in (rows, places, targets)]
    return Sequences(ids_BS.to(device), mask_BS.to(device), *flat)
