"""Log-probabilities, entropy and exact KL straight from hidden states, a tile of rows at a time.

The (N, V) logits never exist at once: each tile is computed, reduced to one number a row and dropped; its backward
computes it again.
"""

# N rows (response tokens of a batch, laid end to end), D hidden size, V vocabulary, B batch, T response tokens

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from heedful.errors import ShapeError
from heedful.functional.masking import require_same_shape

TILE_ROWS = 256


class TokenScores(NamedTuple):
    """Natural-log probability of each target and entropy in nats of each distribution; both (N,), float32."""

    logprobs_N: Tensor
    entropy_N: Tensor


class Comparison(NamedTuple):
    """Policy beside reference at each row, all (N,), float32, nats, detached.

    kl_policy_ref_N is the exact KL(policy || reference) over the vocabulary, never below 0 but for rounding.
    """

    logprobs_N: Tensor
    ref_logprobs_N: Tensor
    entropy_N: Tensor
    kl_policy_ref_N: Tensor


def token_scores(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, *, temperature: float = 1.0) -> TokenScores:
    """log softmax(hidden head^T / temperature) at the targets, and the entropy; differentiable in hidden and head.

    Logits are taken to float32 before the softmax. Raises ShapeError when the row counts differ.
    """
    if hidden_ND.shape[0] != targets_N.shape[0]:
        raise ShapeError(f"hidden has {hidden_ND.shape[0]} rows, targets {targets_N.shape[0]}")
    parts = []
    for start in range(0, hidden_ND.shape[0], TILE_ROWS):
        tile = (hidden_ND[start : start + TILE_ROWS], head_VD, targets_N[start : start + TILE_ROWS], temperature)
        parts.append(checkpoint(_tile_scores, *tile, use_reentrant=False))
    if not parts:
        empty = hidden_ND.new_zeros(0, dtype=torch.float32)
        return TokenScores(empty, empty)
    return TokenScores(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))


def _tile_scores(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprobs_NV = _log_softmax(hidden_ND, head_VD, temperature)
    entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
    return logprobs_NV.gather(-1, targets_N[:, None]).squeeze(-1), entropy_N


def _log_softmax(hidden_ND: Tensor, head_VD: Tensor, temperature: float) -> Tensor:
    logits_NV = torch.nn.functional.linear(hidden_ND, head_VD).float()
    return torch.log_softmax(logits_NV / temperature, dim=-1)


def compare(
    hidden_ND: Tensor, ref_hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, *, temperature: float = 1.0
) -> Comparison:
    """Policy and reference hidden states under the same head. Shapes as in `token_scores`."""
    if not hidden_ND.shape[0] == ref_hidden_ND.shape[0] == targets_N.shape[0]:
        raise ShapeError(f"rows differ: {hidden_ND.shape[0]}, {ref_hidden_ND.shape[0]}, {targets_N.shape[0]}")
    parts: list[Tensor] = []
    for start in range(0, hidden_ND.shape[0], TILE_ROWS):
        rows = slice(start, start + TILE_ROWS)
        with torch.no_grad():
            policy_NV = _log_softmax(hidden_ND[rows], head_VD, temperature)
            ref_NV = _log_softmax(ref_hidden_ND[rows], head_VD, temperature)
            probability_NV = policy_NV.exp()
            picked = targets_N[rows, None]
            entropy_N = -(probability_NV * policy_NV).sum(-1)
            kl_N = (probability_NV * (policy_NV - ref_NV)).sum(-1)
            parts.append(torch.stack([policy_NV.gather(-1, picked)[:, 0], ref_NV.gather(-1, picked)[:, 0], entropy_N, kl_N]))
    joined = torch.cat(parts, dim=1) if parts else hidden_ND.new_zeros(4, 0, dtype=torch.float32)
    return Comparison(*joined)


def sequence_logprobs(logprobs_BT: Tensor, response_mask_BT: Tensor, *, per_token: bool = False) -> Tensor:
    """log pi(y | x) of whole responses, (B,), nats: the sum over the places where the mask is True.

    per_token: the mean instead; 0 for a response without tokens. Raises ShapeError when shapes differ.
    """
    require_same_shape(logprobs_BT=logprobs_BT, response_mask_BT=response_mask_BT)
    sums_B = torch.where(response_mask_BT, logprobs_BT, torch.zeros_like(logprobs_BT)).sum(dim=1)
    return sums_B / response_mask_BT.sum(dim=1).clamp(min=1) if per_token else sums_B
