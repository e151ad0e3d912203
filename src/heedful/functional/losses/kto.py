"""Kahneman-Tversky optimisation: single completions marked good or bad, no pairs (Ethayarajh et al. 2024)."""

# B completions, M mismatched completions

from __future__ import annotations

import torch
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.masking import require_same_shape


def mismatched_kl(logprobs_M: Tensor, ref_logprobs_M: Tensor) -> Tensor:
    """max(0, mean of log pi(y' | x) - log ref(y' | x)), a scalar, nats a sequence, detached.

    The reference point z0 of the paper's section 4: y' is a completion of *another* prompt, so the mean says how far the
    policy moved for completions in general. logprobs_M: sums over tokens under the policy, ref_logprobs_M under the reference.
    Biased upwards by the clamp, so it is a yardstick, not a KL to report. Raises ShapeError for none, or when shapes differ.
    """
    require_same_shape(logprobs_M=logprobs_M, ref_logprobs_M=ref_logprobs_M)
    if logprobs_M.numel() == 0:
        raise ShapeError("no mismatched completion: the KL needs completions of other prompts")
    return (logprobs_M - ref_logprobs_M).detach().mean().clamp(min=0)


def kto_loss(
    log_ratio_B: Tensor,
    desirable_mask_B: Tensor,
    kl: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """w_D (1 - sigmoid(beta (h - z0))) where desirable, w_U (1 - sigmoid(beta (z0 - h))) elsewhere, (B,), not reduced.

    Ethayarajh et al. 2024, section 4. log_ratio_B: h = log pi(y | x) - log ref(y | x), sums over tokens. desirable_mask_B: True
    on completions marked good. kl: z0 of `mismatched_kl`, a scalar, detached here. The caller divides by the completions of the
    whole optimiser batch. Gradients reach log_ratio only. Raises ShapeError when shapes differ or kl is no scalar.
    """
    require_same_shape(log_ratio_B=log_ratio_B, desirable_mask_B=desirable_mask_B)
    if kl.numel() != 1:
        raise ShapeError(f"kl must be one number, its shape is {tuple(kl.shape)}")
    gain_B = beta * (log_ratio_B - kl.detach())
    # 1 - sigmoid(g) = sigmoid(-g)
    return torch.where(desirable_mask_B, desirable_weight * torch.sigmoid(-gain_B), undesirable_weight * torch.sigmoid(gain_B))
