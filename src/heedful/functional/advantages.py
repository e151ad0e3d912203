"""Rewards per token, returns and advantages."""

# B batch, T response tokens

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from heedful.functional.masking import require_same_shape


class Advantages(NamedTuple):
    """Both (B, T), zero where the response mask is False."""

    advantages_BT: Tensor
    returns_BT: Tensor


def token_rewards(scores_B: Tensor, kl_BT: Tensor, response_mask_BT: Tensor, *, kl_coef: float) -> Tensor:
    """-kl_coef * KL at each response token, plus the score of the whole answer on its last token; (B, T).

    response_mask_BT: True on response tokens, end of text included. A row without any response token earns nothing.
    Source: Ziegler et al. 2019, eq. 2, with the KL as a sum over tokens.
    """
    require_same_shape(kl_BT=kl_BT, response_mask_BT=response_mask_BT)
    rewards_BT = torch.where(response_mask_BT, -kl_coef * kl_BT, torch.zeros_like(kl_BT))
    positions_T = torch.arange(kl_BT.shape[1], device=kl_BT.device)
    last_B = torch.where(response_mask_BT, positions_T, -1).max(dim=1).values
    is_last_BT = positions_T == last_B[:, None]
    return rewards_BT + is_last_BT * scores_B[:, None]


def gae(rewards_BT: Tensor, values_BT: Tensor, response_mask_BT: Tensor, *, gamma: float, lam: float) -> Advantages:
    """Generalised advantage estimation, Schulman et al. 2016, eq. 16, for episodes that end with their last token.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}; the return is A_t + V_t.
    rewards_BT, values_BT: reward units. response_mask_BT: True on response tokens, end of text included.
    Not whitened. Padding restarts the recursion. Raises ShapeError when shapes differ.
    """
    require_same_shape(rewards_BT=rewards_BT, values_BT=values_BT, response_mask_BT=response_mask_BT)
    advantages_BT = torch.zeros_like(rewards_BT)
    next_advantage_B = torch.zeros_like(rewards_BT[:, 0])
    next_value_B = torch.zeros_like(values_BT[:, 0])
    for t in range(rewards_BT.shape[1] - 1, -1, -1):
        keep_B = response_mask_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        advantage_B = delta_B + gamma * lam * next_advantage_B
        next_advantage_B = torch.where(keep_B, advantage_B, torch.zeros_like(advantage_B))
        next_value_B = torch.where(keep_B, values_BT[:, t], torch.zeros_like(next_value_B))
        advantages_BT[:, t] = next_advantage_B
    returns_BT = torch.where(response_mask_BT, advantages_BT + values_BT, torch.zeros_like(values_BT))
    return Advantages(advantages_BT, returns_BT)


def kl_advantages(
    logprobs_BT: Tensor, ref_logprobs_BT: Tensor, kl_BT: Tensor, response_mask_BT: Tensor, *, kl_coef: float
) -> Tensor:
    """-kl_coef (log p - log p_ref - KL): what a token's *own* KL penalty adds to its advantage; (B, T), 0 where masked.

    kl_BT: exact KL(policy || reference) over the vocabulary in the state before each token. As a reward it is the same for
    every token that could be drawn there, so by itself it would hold only the tokens before it, and the gradient of the
    state's own KL would be lost. The sampled log-ratio has that KL as its mean over tokens; the difference of the two is the
    advantage of the immediate penalty, and with it the policy gradient is that of the whole KL.
    """
    require_same_shape(logprobs_BT=logprobs_BT, ref_logprobs_BT=ref_logprobs_BT, kl_BT=kl_BT, response_mask_BT=response_mask_BT)
    own_BT = -kl_coef * (logprobs_BT - ref_logprobs_BT - kl_BT)
    return torch.where(response_mask_BT, own_BT, torch.zeros_like(own_BT))


def explained_variance(returns_BT: Tensor, values_BT: Tensor, response_mask_BT: Tensor) -> float:
    """1 - Var(return - value) / Var(return) over response tokens; 1 perfect, 0 no better than the mean."""
    returns = returns_BT[response_mask_BT]
    if returns.numel() < 2 or returns.var() == 0:
        return 0.0
    return float(1 - (returns - values_BT[response_mask_BT]).var() / returns.var())
