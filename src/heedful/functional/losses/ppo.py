"""The terms of the PPO objective (Schulman et al. 2017, eq. 7 and 9) and of its kin."""

# B batch, T response tokens

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from heedful.functional.masking import require_same_shape

LOG_RATIO_LIMIT = 20.0  # exp(20) is finite in float32; a ratio beyond it carries no gradient worth having


class PolicyLoss(NamedTuple):
    """loss: a sum over tokens divided by num_tokens. clipped_tokens, update_kl: sums over tokens, detached."""

    loss: Tensor
    clipped_tokens: Tensor
    update_kl: Tensor


def policy_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    response_mask_BT: Tensor,
    *,
    clip: float,
    num_tokens: int,
    clip_high: float | None = None,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """-sum min(ratio A, clip(ratio, 1 - clip, 1 + clip_high) A) / num_tokens over response tokens.

    The objective is homogeneous in A: a token that should weigh w > 0 times as much gets w times its advantage.

    ratio = exp(logprobs - old_logprobs), the log-ratio held within +-LOG_RATIO_LIMIT. Gradients reach logprobs only.
    num_tokens: response tokens of the *whole* optimiser batch, so that accumulated parts add up to one batch.
    response_mask_BT: True on response tokens. clip_high: upper side, as clip when None (Yu et al. 2025, DAPO, eq. 10).
    dual_clip: where A < 0 a term is at least dual_clip * A, so that a token that became likely does not pull without bound;
    greater than 1 (Ye et al. 2020, eq. 5).
    clipped_tokens: how many tokens took the clipped side. update_kl: sum of (ratio - 1) - log ratio (Schulman's k3).
    """
    require_same_shape(
        logprobs_BT=logprobs_BT,
        old_logprobs_BT=old_logprobs_BT,
        advantages_BT=advantages_BT,
        response_mask_BT=response_mask_BT,
    )
    # Padding may hold anything, infinities too: it is set to 0 before the exponential, not multiplied away after it.
    zero = torch.zeros_like(logprobs_BT)
    log_ratio_BT = torch.where(response_mask_BT, logprobs_BT - old_logprobs_BT.detach(), zero)
    log_ratio_BT = log_ratio_BT.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    advantages_BT = torch.where(response_mask_BT, advantages_BT.detach(), zero)
    ratio_BT = log_ratio_BT.exp()
    plain_BT = ratio_BT * advantages_BT
    clipped_BT = ratio_BT.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * advantages_BT
    term_BT = torch.minimum(plain_BT, clipped_BT)
    if dual_clip is not None:
        term_BT = torch.where(advantages_BT < 0, torch.maximum(term_BT, dual_clip * advantages_BT), term_BT)
    loss = -term_BT.sum() / num_tokens
    with torch.no_grad():
        clipped_tokens = (clipped_BT < plain_BT).sum()
        update_kl = ((ratio_BT - 1) - log_ratio_BT).sum()
    return PolicyLoss(loss, clipped_tokens, update_kl)


def value_loss(
    values_BT: Tensor,
    old_values_BT: Tensor,
    returns_BT: Tensor,
    response_mask_BT: Tensor,
    *,
    clip: float,
    num_tokens: int,
) -> Tensor:
    """0.5 sum max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) / num_tokens. Gradients reach values only.

    The larger of the two, as in OpenAI's baselines: a value that has left the band gets no push further out.
    """
    require_same_shape(
        values_BT=values_BT, old_values_BT=old_values_BT, returns_BT=returns_BT, response_mask_BT=response_mask_BT
    )
    zero = torch.zeros_like(values_BT)
    values_BT = torch.where(response_mask_BT, values_BT, zero)  # before the square: inf - inf has a gradient of nan
    old_BT = torch.where(response_mask_BT, old_values_BT.detach(), zero)
    returns_BT = torch.where(response_mask_BT, returns_BT.detach(), zero)
    near_BT = torch.minimum(torch.maximum(values_BT, old_BT - clip), old_BT + clip)
    larger_BT = torch.maximum((values_BT - returns_BT).square(), (near_BT - returns_BT).square())
    return 0.5 * larger_BT.sum() / num_tokens


def entropy_bonus(entropy_BT: Tensor, response_mask_BT: Tensor, *, num_tokens: int) -> Tensor:
    """Mean entropy in nats a response token; added to what is maximised, so *subtracted* from the loss."""
    require_same_shape(entropy_BT=entropy_BT, response_mask_BT=response_mask_BT)
    return torch.where(response_mask_BT, entropy_BT, torch.zeros_like(entropy_BT)).sum() / num_tokens


def kl_loss(
    logprobs_BT: Tensor, ref_logprobs_BT: Tensor, response_mask_BT: Tensor, weights_BT: Tensor, *, num_tokens: int
) -> Tensor:
    """sum of w (log p - log p_ref)^2 / 2 over response tokens, over num_tokens: the estimate k2 (Schulman 2020).

    Its gradient is the mean of (log p - log p_ref) grad log p, that of KL(policy || reference) for tokens that the policy drew;
    the gradient of k1 has mean 0, and that of k3 is another divergence's. Gradients reach logprobs only.
    """
    require_same_shape(
        logprobs_BT=logprobs_BT,
        ref_logprobs_BT=ref_logprobs_BT,
        response_mask_BT=response_mask_BT,
        weights_BT=weights_BT,
    )
    ratio_BT = torch.where(response_mask_BT, logprobs_BT - ref_logprobs_BT.detach(), torch.zeros_like(logprobs_BT))
    return (
        0.5 * (torch.where(response_mask_BT, weights_BT, torch.zeros_like(weights_BT)) * ratio_BT.square()).sum() / num_tokens
    )
