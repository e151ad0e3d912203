"""Implicit Q-learning with a conservative term (Snell et al. 2022, "Offline RL for natural language generation with ILQL").

Q(s, a) is what follows action a in state s, V(s) an upper expectile of Q over the actions that the data holds, so no action
outside the data is ever asked for. The same functions serve tokens and the moves of a board game.
"""

# B batch, T response tokens (actions of an episode), A actions (the vocabulary), N rows laid end to end

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from heedful.functional.masking import require_same_shape


class ILQLLoss(NamedTuple):
    """Scalars. loss = td + expectile + cql_coef * cql; the parts are detached."""

    loss: Tensor
    td: Tensor
    expectile: Tensor
    cql: Tensor


def next_values(values_BT: Tensor, response_mask_BT: Tensor) -> Tensor:
    """V of the state that each action leads to, (B, T): the value one place on, and 0 after an episode's last action.

    response_mask_BT: True on actions; those of a row stand side by side.
    """
    require_same_shape(values_BT=values_BT, response_mask_BT=response_mask_BT)
    kept_BT = torch.where(response_mask_BT, values_BT, torch.zeros_like(values_BT))
    return torch.cat([kept_BT[:, 1:], torch.zeros_like(kept_BT[:, :1])], dim=1)


def td_loss(
    q_BT: Tensor, rewards_BT: Tensor, next_values_BT: Tensor, response_mask_BT: Tensor, *, gamma: float, num_tokens: int
) -> Tensor:
    """sum (r + gamma V(s') - Q(s, a))^2 / num_tokens over actions; gradients reach Q only.

    Source: Kostrikov et al. 2021 (IQL), eq. 6. next_values_BT: 0 where the episode ends. Of two players who move in turn, pass
    minus the value that the other one sees. num_tokens: actions of the whole optimiser batch, so that parts add up.
    """
    require_same_shape(q_BT=q_BT, rewards_BT=rewards_BT, next_values_BT=next_values_BT, response_mask_BT=response_mask_BT)
    gap_BT = (rewards_BT + gamma * next_values_BT).detach() - q_BT
    # Padding may hold anything, infinities too: it is set to 0 before the square, not multiplied away after it.
    return torch.where(response_mask_BT, gap_BT, torch.zeros_like(gap_BT)).square().sum() / num_tokens


def expectile_loss(
    values_BT: Tensor, target_q_BT: Tensor, response_mask_BT: Tensor, *, expectile: float, num_tokens: int
) -> Tensor:
    """sum |tau - [u < 0]| u^2 / num_tokens over actions, u = Q_target(s, a) - V(s); gradients reach V only.

    Source: Kostrikov et al. 2021, eq. 5. expectile: tau within (0, 1). 0.5 is half the squared error, so V becomes the mean of
    Q over the data's actions; towards 1 it becomes their maximum. target_q_BT: Q of the slowly following copy.
    """
    require_same_shape(values_BT=values_BT, target_q_BT=target_q_BT, response_mask_BT=response_mask_BT)
    gap_BT = target_q_BT.detach() - values_BT
    gap_BT = torch.where(response_mask_BT, gap_BT, torch.zeros_like(gap_BT))
    weight_BT = (expectile - (gap_BT < 0).to(gap_BT.dtype)).abs()
    return (weight_BT * gap_BT.square()).sum() / num_tokens


def cql_loss(q_logprobs_BT: Tensor, response_mask_BT: Tensor, *, num_tokens: int) -> Tensor:
    """-sum log softmax(Q(s, .))[a] / num_tokens over actions: lowers Q of what the data does not hold.

    Source: Kumar et al. 2020 (CQL), eq. 4, as Snell et al. use it. q_logprobs_BT: Q(s, a) less the log-sum-exp of Q(s, .) over
    all (legal) actions, never above 0 but for rounding.
    """
    require_same_shape(q_logprobs_BT=q_logprobs_BT, response_mask_BT=response_mask_BT)
    return -torch.where(response_mask_BT, q_logprobs_BT, torch.zeros_like(q_logprobs_BT)).sum() / num_tokens


def ilql_loss(
    q_BT: Tensor,
    q_logprobs_BT: Tensor,
    target_q_BT: Tensor,
    values_BT: Tensor,
    next_values_BT: Tensor,
    rewards_BT: Tensor,
    response_mask_BT: Tensor,
    *,
    gamma: float,
    expectile: float,
    cql_coef: float,
    num_tokens: int,
) -> ILQLLoss:
    """The whole objective, Snell et al. 2022: TD for Q, expectile for V, cql_coef times the conservative term."""
    td = td_loss(q_BT, rewards_BT, next_values_BT, response_mask_BT, gamma=gamma, num_tokens=num_tokens)
    upper = expectile_loss(values_BT, target_q_BT, response_mask_BT, expectile=expectile, num_tokens=num_tokens)
    cql = cql_loss(q_logprobs_BT, response_mask_BT, num_tokens=num_tokens)
    return ILQLLoss(td + upper + cql_coef * cql, td.detach(), upper.detach(), cql.detach())


def polyak(target: Tensor, online: Tensor, *, rate: float) -> Tensor:
    """(1 - rate) target + rate online: the copy follows slowly, so that Q does not chase itself. Detached."""
    with torch.no_grad():
        return (1 - rate) * target + rate * online


def advantage_weighted(logits_NA: Tensor, q_NA: Tensor, values_N: Tensor, *, beta: float, top_k: int) -> Tensor:
    """log pi_beta(a | s) + beta (Q(s, a) - V(s)) for the top_k likeliest actions, -inf for all others; (N, A).

    Not normalised: a softmax makes it the policy of Snell et al. 2022. logits_NA: of the behaviour policy, -inf on
    illegal actions. V moves all actions of a state alike and thus no probability; it keeps the numbers small. top_k 0: all.
    """
    require_same_shape(logits_NA=logits_NA, q_NA=q_NA)
    weighted_NA = torch.log_softmax(logits_NA, dim=-1) + beta * (q_NA - values_N[:, None])
    if 0 < top_k < logits_NA.shape[1]:
        kept_NK = logits_NA.topk(top_k, dim=-1).indices
        outside_NA = torch.ones_like(logits_NA, dtype=torch.bool).scatter(-1, kept_NK, False)
        weighted_NA = weighted_NA.masked_fill(outside_NA, -torch.inf)
    return weighted_NA
