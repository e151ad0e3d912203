"""Rewards per token, returns and advantages."""

# B batch, T response tokens, G groups (the answers to one prompt)

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from heedful.errors import ShapeError
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
    require_same_shape(scores_B=scores_B, rows_B=response_mask_BT[:, 0])
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


def sampled_kl(logprobs_BT: Tensor, ref_logprobs_BT: Tensor, kind: Literal["k1", "k3"]) -> Tensor:
    """An estimate of KL(policy || reference) in nats from the sampled token alone (Schulman 2020); (B, T).

    k1 = log p - log p_ref, which may be negative; k3 = p_ref / p - 1 - log(p_ref / p), which may not. Both have the KL as their
    mean over tokens drawn from the policy. The log-ratio is held within +-20 before the exponential.
    """
    require_same_shape(logprobs_BT=logprobs_BT, ref_logprobs_BT=ref_logprobs_BT)
    ratio_BT = logprobs_BT - ref_logprobs_BT
    if kind == "k1":
        return ratio_BT
    back_BT = (-ratio_BT).clamp(-20.0, 20.0)
    return back_BT.exp() - 1 - back_BT


def leave_one_out(rewards_B: Tensor, groups_B: Tensor) -> Tensor:
    """Each reward less the mean of the others of its group; (B,). RLOO (Kool et al. 2019; Ahmadian et al. 2024, eq. 8).

    groups_B: which prompt each answer belongs to. Raises ShapeError for a group of one: it has no others.
    """
    mean_B, size_B, _ = _of_group(rewards_B, groups_B)
    if int(size_B.min()) < 2:
        raise ShapeError("a group of one answer has no others to be held against; take two samples a prompt or more")
    return (rewards_B - mean_B) * size_B / (size_B - 1)


def group_advantages(rewards_B: Tensor, groups_B: Tensor, *, scale: bool, eps: float = 1e-6) -> Tensor:
    """Each reward less its group's mean, over the group's standard deviation when `scale`; (B,).

    GRPO (Shao et al. 2024, section 4.1.2); Dr. GRPO (Liu et al. 2025) leaves the deviation out, for it favours prompts on which
    nearly all answers earn the same. The deviation is the unbiased one; a group whose rewards are all equal gets 0.
    """
    mean_B, _, sd_B = _of_group(rewards_B, groups_B)
    centred_B = torch.where(equal_groups(rewards_B, groups_B), torch.zeros_like(rewards_B), rewards_B - mean_B)
    return centred_B / (sd_B + eps) if scale else centred_B


def equal_groups(rewards_B: Tensor, groups_B: Tensor) -> Tensor:
    """True for answers in whose group all rewards are equal, so that nothing can be learned from it; (B,)."""
    require_same_shape(rewards_B=rewards_B, groups_B=groups_B)
    same_BB = groups_B[:, None] == groups_B
    return (~same_BB | (rewards_B[:, None] == rewards_B)).all(dim=1)


def _of_group(rewards_B: Tensor, groups_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, size and unbiased standard deviation of each answer's group, all (B,)."""
    require_same_shape(rewards_B=rewards_B, groups_B=groups_B)
    same_BB = (groups_B[:, None] == groups_B).to(rewards_B.dtype)
    size_B = same_BB.sum(dim=1)
    mean_B = same_BB @ rewards_B / size_B
    squares_B = same_BB @ (rewards_B - mean_B).square()
    return mean_B, size_B, (squares_B / (size_B - 1).clamp(min=1)).sqrt()


def explained_variance(returns_BT: Tensor, values_BT: Tensor, response_mask_BT: Tensor) -> float:
    """1 - Var(return - value) / Var(return) over response tokens; 1 perfect, 0 no better than the mean.

    0 as well for fewer than two tokens, and for returns that are equal but for rounding: there is nothing to explain.
    """
    returns = returns_BT[response_mask_BT]
    # The variance of equal numbers is 1e-17, not 0, where their mean is rounded; as a divisor it would make 1e15 of any error.
    if returns.numel() < 2 or returns.std() <= 16 * torch.finfo(returns.dtype).eps * returns.abs().max():
        return 0.0
    return float(1 - (returns - values_BT[response_mask_BT]).var() / returns.var())
