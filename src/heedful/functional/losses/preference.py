"""Objectives that learn from pairs without a reward model: DPO and its kin, SimPO, ORPO.

Each gives one number a pair, not reduced: the caller sums and divides by the pairs of the whole optimiser batch, so that
accumulated parts add up to it. probability_P is that chosen is the better one; at 1 each is its paper's loss, below 1 the
mean of that loss over a label drawn with the probability.
"""

# P pairs

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from heedful.functional.masking import require_same_shape

NEVER_SURE = -1e-6  # a mean log-prob is held below this: at probability 1 the odds are infinite


def log_ratio_margin(chosen_P: Tensor, rejected_P: Tensor, ref_chosen_P: Tensor, ref_rejected_P: Tensor) -> Tensor:
    """(log pi(y_c) - log ref(y_c)) - (log pi(y_r) - log ref(y_r)), (P,), nats.

    Sums over a completion's tokens for DPO, means for IPO. Times beta it is the difference of the implicit rewards
    (Rafailov et al. 2023, eq. 5). The reference is detached. Raises ShapeError when shapes differ.
    """
    require_same_shape(chosen_P=chosen_P, rejected_P=rejected_P, ref_chosen_P=ref_chosen_P, ref_rejected_P=ref_rejected_P)
    return (chosen_P - ref_chosen_P.detach()) - (rejected_P - ref_rejected_P.detach())


def _expected(straight_P: Tensor, flipped_P: Tensor, probability_P: Tensor) -> Tensor:
    """p * loss as labelled + (1 - p) * loss with the pair turned round."""
    probability_P = probability_P.detach().to(straight_P.dtype)
    return probability_P * straight_P + (1 - probability_P) * flipped_P


def sigmoid_loss(margin_P: Tensor, probability_P: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-p log sigmoid(beta m) - (1 - p) log sigmoid(-beta m), (P,).

    At p = 1: DPO (Rafailov et al. 2023, eq. 7). label_smoothing e takes p to (1 - e) p + e (1 - p): conservative DPO
    (Mitchell 2023), whose best margin is finite. margin_P: of sums. Gradients reach the margin only. Raises ShapeError.
    """
    require_same_shape(margin_P=margin_P, probability_P=probability_P)
    target_P = (1 - label_smoothing) * probability_P + label_smoothing * (1 - probability_P)
    logit_P = beta * margin_P
    return _expected(-F.logsigmoid(logit_P), -F.logsigmoid(-logit_P), target_P)


def robust_loss(margin_P: Tensor, probability_P: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """((1 - e) l(m) - e l(-m)) / (1 - 2 e) with l of `sigmoid_loss`, (P,): DPO freed of the bias of flipped labels.

    Chowdhury et al. 2024. label_smoothing e: share of labels that are flipped, below 0.5. Its mean over labels flipped
    at that rate is DPO's loss on the clean ones. May be negative. Gradients reach the margin only. Raises ShapeError.
    """
    require_same_shape(margin_P=margin_P, probability_P=probability_P)
    straight_P = sigmoid_loss(margin_P, probability_P, beta=beta)
    flipped_P = sigmoid_loss(-margin_P, probability_P, beta=beta)
    return ((1 - label_smoothing) * straight_P - label_smoothing * flipped_P) / (1 - 2 * label_smoothing)


def ipo_loss(margin_P: Tensor, probability_P: Tensor, *, beta: float) -> Tensor:
    """p (m - 1 / (2 beta))^2 + (1 - p) (m + 1 / (2 beta))^2, (P,): a margin to reach, not to outgrow.

    Azar et al. 2023, eq. 17, beta their tau. margin_P: of means over tokens, else long completions reach the goal by length
    alone. Gradients reach the margin only. Raises ShapeError.
    """
    require_same_shape(margin_P=margin_P, probability_P=probability_P)
    goal = 1 / (2 * beta)
    return _expected((margin_P - goal).square(), (margin_P + goal).square(), probability_P)


def hinge_loss(margin_P: Tensor, probability_P: Tensor, *, beta: float) -> Tensor:
    """p max(0, 1 - beta m) + (1 - p) max(0, 1 + beta m), (P,). Zhao et al. 2023 (SLiC); Liu et al. 2024.

    margin_P: of sums. A pair beyond the hinge has no gradient. Gradients reach the margin only. Raises ShapeError.
    """
    require_same_shape(margin_P=margin_P, probability_P=probability_P)
    return _expected(torch.relu(1 - beta * margin_P), torch.relu(1 + beta * margin_P), probability_P)


def simpo_loss(chosen_mean_P: Tensor, rejected_mean_P: Tensor, probability_P: Tensor, *, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta (a_c - a_r) - gamma), (P,), a the mean log-prob a token; no reference.

    Meng et al. 2024, eq. 6; gamma is the margin that the better completion must lead by, in units of the logit. Turned round
    (weight 1 - p) the other one must lead by it. Gradients reach both means. Raises ShapeError.
    """
    require_same_shape(chosen_mean_P=chosen_mean_P, rejected_mean_P=rejected_mean_P, probability_P=probability_P)
    lead_P = beta * (chosen_mean_P - rejected_mean_P)
    return _expected(-F.logsigmoid(lead_P - gamma), -F.logsigmoid(-lead_P - gamma), probability_P)


def odds_ratio_loss(chosen_mean_P: Tensor, rejected_mean_P: Tensor, probability_P: Tensor) -> Tensor:
    """-log sigmoid(log odds(y_c) - log odds(y_r)), (P,), odds = q / (1 - q), log q the mean log-prob a token; no reference.

    Hong et al. 2024, eq. 4 and 7. ORPO adds it, times a weight, to the cross-entropy of the chosen completions
    (`completion_loss`), eq. 6. Gradients reach both means, save where one is within 1e-6 of 0. Raises ShapeError.
    """
    require_same_shape(chosen_mean_P=chosen_mean_P, rejected_mean_P=rejected_mean_P, probability_P=probability_P)
    lead_P = _log_odds(chosen_mean_P) - _log_odds(rejected_mean_P)
    return _expected(-F.logsigmoid(lead_P), -F.logsigmoid(-lead_P), probability_P)


def _log_odds(mean_P: Tensor) -> Tensor:
    mean_P = mean_P.clamp(max=NEVER_SURE)
    return mean_P - torch.log(-torch.expm1(mean_P))
