"""Pairs that may end level: three probabilities (chosen better, rejected better, tie) from a difference of rewards."""

# P pairs

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from heedful.functional.masking import require_same_shape

TieModel = Literal["davidson", "rao-kupper"]


def tie_log_probabilities(gap_P: Tensor, log_parameter: Tensor, model: TieModel) -> Tensor:
    """Log-probabilities (P, 3) of "chosen is better", "rejected is better", "tie"; they sum to 1 after exp.

    gap_P: d = r_j - r_k. log_parameter: a scalar, log nu (any number) or log theta (above 0).
    davidson: e^(d/2), e^(-d/2) and nu over their sum (Davidson 1970, with worths e^r).
    rao-kupper: sigmoid(d - log theta), sigmoid(-d - log theta), and what is left (Rao and Kupper 1967).
    """
    if model == "davidson":
        return F.log_softmax(torch.stack([gap_P / 2, -gap_P / 2, log_parameter.expand_as(gap_P)], dim=-1), dim=-1)
    better_P, worse_P = F.logsigmoid(gap_P - log_parameter), F.logsigmoid(-gap_P - log_parameter)
    # 1 - sigmoid(d - h) - sigmoid(-d - h) = (theta^2 - 1) sigmoid(d - h) sigmoid(-d - h): a product cancels nothing.
    log_factor = 2 * log_parameter + torch.log(-torch.expm1(-2 * log_parameter))
    return torch.stack([better_P, worse_P, log_factor + better_P + worse_P], dim=-1)


def tie_aware_loss(
    chosen_P: Tensor,
    rejected_P: Tensor,
    probability_P: Tensor,
    tied_P: Tensor,
    log_parameter: Tensor,
    model: TieModel,
    margin_P: Tensor | None = None,
) -> Tensor:
    """Mean of -p log P(chosen better) - (1 - p) log P(rejected better) over decided pairs and -log P(tie) over tied ones.

    probability_P: p, that chosen is better. tied_P: True where the pair is a tie; p is not read there. margin_P: taken from
    the difference of rewards. A scalar in nats, zero for no pairs; differentiable in rewards and log_parameter.
    """
    require_same_shape(chosen_P=chosen_P, rejected_P=rejected_P, probability_P=probability_P, tied_P=tied_P)
    if chosen_P.numel() == 0:
        return chosen_P.sum()
    gap_P = chosen_P - rejected_P
    if margin_P is not None:
        require_same_shape(chosen_P=chosen_P, margin_P=margin_P)
        gap_P = gap_P - margin_P
    better_P, worse_P, level_P = tie_log_probabilities(gap_P, log_parameter, model).unbind(dim=-1)
    p_P = probability_P.to(gap_P.dtype)
    return -torch.where(tied_P, level_P, p_P * better_P + (1 - p_P) * worse_P).mean()


def log_tie_parameter(raw: Tensor, model: TieModel) -> Tensor:
    """log nu or log theta from a number without bounds; at 0 all outcomes of equal rewards are as likely: nu 1, theta 2."""
    return raw if model == "davidson" else F.softplus(raw)


def raw_tie_parameter(parameter: float, model: TieModel) -> float:
    """The number that `log_tie_parameter` turns into log of the parameter."""
    return math.log(parameter) if model == "davidson" else math.log(math.expm1(math.log(parameter)))
