"""Log-probabilities, entropy and exact KL straight from hidden states, a tile of rows at a time.

The (N, V) logits never exist at once: each tile is computed, reduced and dropped. What the gradient of a log-probability needs
of them is one vector a row, taken from the tile while it is there.
"""

# N rows (response tokens of a batch, laid end to end), D hidden size, V vocabulary, B batch, T response tokens

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from heedful.errors import ShapeError
from heedful.functional.masking import require_same_shape

TILE_ROWS = 64  # a tile of 49,152 columns takes 12.6 MB in float32, and each lane has its own; 128 would be 2% faster in all


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


def token_scores(
    hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, *, temperature: float = 1.0, learn_entropy: bool = False
) -> TokenScores:
    """log softmax(hidden head^T / temperature) at the targets, and the entropy; differentiable once in hidden and head.

    learn_entropy: the entropy has a gradient too, for one more product with the head; else it is detached.
    Logits are taken to float32 before the softmax. Raises ShapeError when the row counts differ.
    """
    if hidden_ND.shape[0] != targets_N.shape[0]:
        raise ShapeError(f"hidden has {hidden_ND.shape[0]} rows, targets {targets_N.shape[0]}")
    learn = torch.is_grad_enabled()
    found = _Scores.apply(hidden_ND, head_VD, targets_N, temperature, learn, learn_entropy)  # type: ignore[no-untyped-call]
    return TokenScores(*found)


class _Scores(torch.autograd.Function):
    """Of log-probs alone, d log p(target) / d hidden = (e_target - p) head / temperature is kept, a row each.

    Where the head or the entropy learns too, the tile is computed again in the backward, and one product serves both.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        targets_N: Tensor,
        temperature: float,
        learn: bool,
        learn_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.again, ctx.temperature = learn_entropy or ctx.needs_input_grad[1], temperature
        slopes = learn and ctx.needs_input_grad[0] and not ctx.again
        logprobs_N, entropy_N, slopes_ND = _scores(hidden_ND, head_VD, targets_N, temperature, slopes)
        ctx.save_for_backward(hidden_ND, head_VD, targets_N, slopes_ND)
        if not learn_entropy:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, head_VD, targets_N, slopes_ND = ctx.saved_tensors
        of_logprobs_N = grads[0]
        nothing = (None, None, None, None)
        if not ctx.again:
            return None if of_logprobs_N is None else slopes_ND * of_logprobs_N[:, None], None, *nothing
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        grad_ND = torch.zeros_like(hidden_ND) if needs_hidden else None
        grad_VD = torch.zeros_like(head_VD, dtype=torch.float32) if needs_head else None
        for rows in _tiles(hidden_ND.shape[0]):
            by_logprob_N, by_entropy_N = (None if part is None else part[rows] for part in grads)
            tile = hidden_ND[rows], head_VD, targets_N[rows], ctx.temperature
            grad_NV = _tile_gradient(*tile, by_logprob_N, by_entropy_N)
            if grad_ND is not None:
                grad_ND[rows] = grad_NV.to(head_VD.dtype) @ head_VD
            if grad_VD is not None:
                grad_VD += grad_NV.to(hidden_ND.dtype).T @ hidden_ND[rows]
        return grad_ND, None if grad_VD is None else grad_VD.to(head_VD.dtype), *nothing


def _scores(
    hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, temperature: float, slopes: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log-probs, entropies and, where asked for, d log p(target) / d hidden, a row each."""
    logprobs_N = hidden_ND.new_empty(hidden_ND.shape[0], dtype=torch.float32)
    entropy_N = torch.empty_like(logprobs_N)
    slopes_ND = torch.empty_like(hidden_ND) if slopes else None
    for rows in _tiles(hidden_ND.shape[0]):
        logprobs_NV = _log_softmax(hidden_ND[rows], head_VD, temperature)
        picked_N1 = targets_N[rows, None]
        logprobs_N[rows] = logprobs_NV.gather(-1, picked_N1)[:, 0]
        probability_NV = logprobs_NV.exp()
        entropy_N[rows] = -logprobs_NV.mul_(probability_NV).sum(-1)
        if slopes_ND is not None:
            slopes_ND[rows] = (_slope(probability_NV, picked_N1).to(head_VD.dtype) @ head_VD) / temperature
        del logprobs_NV, probability_NV  # else they would live while the next tile is made
    return logprobs_N, entropy_N, slopes_ND


def _tile_gradient(
    hidden_ND: Tensor,
    head_VD: Tensor,
    targets_N: Tensor,
    temperature: float,
    by_logprob_N: Tensor | None,
    by_entropy_N: Tensor | None,
) -> Tensor:
    """Gradient (N, V) by the logits before the temperature, of what has the given gradients by log-probs and entropies."""
    logprobs_NV = _log_softmax(hidden_ND, head_VD, temperature)
    probability_NV = logprobs_NV.exp()
    grad_NV = torch.zeros_like(logprobs_NV)
    if by_entropy_N is not None:
        # dH / d logits = -p (log p + H)
        entropy_N1 = -(probability_NV * logprobs_NV).sum(-1, keepdim=True)
        grad_NV -= probability_NV * (logprobs_NV + entropy_N1) * by_entropy_N[:, None]
    if by_logprob_N is not None:
        grad_NV += _slope(probability_NV, targets_N[:, None]) * by_logprob_N[:, None]
    return grad_NV / temperature


def _slope(probability_NV: Tensor, picked_N1: Tensor) -> Tensor:
    """e_target - p, in the place of p. The difference is taken before any product, so that a sure token's stays small."""
    return probability_NV.neg_().scatter_add_(-1, picked_N1, torch.ones_like(picked_N1, dtype=probability_NV.dtype))


def _tiles(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, TILE_ROWS):
        yield slice(start, min(num_rows, start + TILE_ROWS))


def _log_softmax(hidden_ND: Tensor, head_VD: Tensor, temperature: float) -> Tensor:
    logits_NV = torch.nn.functional.linear(hidden_ND, head_VD).float()
    if temperature != 1:
        logits_NV = logits_NV / temperature
    return torch.log_softmax(logits_NV, dim=-1)


def compare(
    hidden_ND: Tensor, ref_hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, *, temperature: float = 1.0
) -> Comparison:
    """Policy and reference hidden states under the same head. Shapes as in `token_scores`."""
    if not hidden_ND.shape[0] == ref_hidden_ND.shape[0] == targets_N.shape[0]:
        raise ShapeError(f"rows differ: {hidden_ND.shape[0]}, {ref_hidden_ND.shape[0]}, {targets_N.shape[0]}")
    parts: list[Tensor] = []
    for rows in _tiles(hidden_ND.shape[0]):
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
