"""The reward model's objective (Stiennon et al. 2020; Ouyang et al. 2022, eq. 1) with soft targets."""

# P pairs

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from heedful.functional.masking import require_same_shape


def pairwise_loss(chosen_P: Tensor, rejected_P: Tensor, probability_P: Tensor, margin_P: Tensor | None = None) -> Tensor:
    """Mean of -p log sigmoid(r_j - r_k - m) - (1 - p) log sigmoid(r_k - r_j + m) over pairs; a scalar in nats.

    chosen_P, rejected_P: rewards r_j of the preferred and r_k of the other. probability_P: that chosen is better; with
    p = 1 and no margin this is -log sigmoid(r_j - r_k). margin_P: m, by how much the rewards shall differ at least (Touvron et
    al. 2023, Llama 2, eq. 2); none is 0. Zero for no pairs.
    """
    require_same_shape(chosen_P=chosen_P, rejected_P=rejected_P, probability_P=probability_P)
    if chosen_P.numel() == 0:
        return chosen_P.sum()
    gap_P = chosen_P - rejected_P
    if margin_P is not None:
        require_same_shape(chosen_P=chosen_P, margin_P=margin_P)
        gap_P = gap_P - margin_P
    return F.binary_cross_entropy_with_logits(gap_P, probability_P.to(chosen_P.dtype))


def centring_loss(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """Mean of (r_j + r_k)^2; keeps rewards around 0, where differences alone leave them free (Eisenstein et al. 2023)."""
    require_same_shape(chosen_P=chosen_P, rejected_P=rejected_P)
    return (chosen_P + rejected_P).square().mean() if chosen_P.numel() else chosen_P.sum()
