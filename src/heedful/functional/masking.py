"""Means and whitening under a mask."""

# B batch, T response tokens

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from heedful.errors import ShapeError


def require_same_shape(**tensors: Tensor) -> None:
    """Raises ShapeError, naming each tensor and its shape, unless all shapes are equal."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ShapeError("shapes differ: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the places where the mask is True; 0 where there are none. Scalar, dtype of values."""
    require_same_shape(values_BT=values_BT, mask_BT=mask_BT)
    kept = torch.where(mask_BT, values_BT, torch.zeros_like(values_BT))
    return kept.sum() / mask_BT.sum().clamp(min=1)


def spread(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Numbers laid end to end, row by row, back in the places where the mask is True; (B, T), 0 elsewhere. Differentiable."""
    spread_BT = torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device)
    return spread_BT.masked_scatter(mask_BT, values_N)


def whiten(values_BT: Tensor, mask_BT: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Divides by the standard deviation over the places where the mask is True; (B, T), 0 where it is False.

    shift_mean: subtract the mean as well; without it the mean of the input is kept. The variance is the unbiased one.
    Equal values (and a single one) become 0 after the shift.
    """
    require_same_shape(values_BT=values_BT, mask_BT=mask_BT)
    mean = masked_mean(values_BT, mask_BT)
    centred_BT = values_BT - mean
    variance = masked_mean(centred_BT.square(), mask_BT)
    count = mask_BT.sum()
    variance = variance * count / (count - 1).clamp(min=1)
    whitened_BT = centred_BT * torch.rsqrt(variance + eps)
    if not shift_mean:
        whitened_BT = whitened_BT + mean
    return torch.where(mask_BT, whitened_BT, torch.zeros_like(whitened_BT))


def token_weights(mask_BT: Tensor, average: Literal["token", "sequence", "constant"], *, max_tokens: int) -> Tensor:
    """What each token weighs, so that sum(w x) / (number of True) is the average that is wanted; (B, T), 0 where False.

    token: the mean over all tokens (w = 1). sequence: the mean over sequences of each one's mean, in which tokens of a long
    sequence weigh less (GRPO, Shao et al. 2024, eq. 3). constant: the sum over tokens, over B times max_tokens, in which a
    token weighs the same however long its sequence is (Dr. GRPO, Liu et al. 2025). Sequences without a token count in B.
    """
    keep_BT = mask_BT.to(torch.float32)
    if average == "token":
        return keep_BT
    num_tokens, num_sequences = keep_BT.sum(), mask_BT.shape[0]
    if average == "constant":
        return keep_BT * num_tokens / (num_sequences * max_tokens)
    return keep_BT * num_tokens / (num_sequences * keep_BT.sum(dim=1, keepdim=True).clamp(min=1))
