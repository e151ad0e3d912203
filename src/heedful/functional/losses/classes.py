"""The objective of a reward model that is a classifier: cross-entropy over the labels' logits."""

# B texts, L labels

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from heedful.errors import ShapeError


def class_loss(logits_BL: Tensor, labels_B: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[label] over texts; a scalar in nats, zero for no texts.

    labels_B: numbers of the right labels, int64. With two labels this is -log sigmoid of the right logit less the wrong one.
    """
    if logits_BL.dim() != 2 or labels_B.shape != logits_BL.shape[:1]:
        raise ShapeError(f"logits_BL {tuple(logits_BL.shape)} and labels_B {tuple(labels_B.shape)} do not fit each other")
    return F.cross_entropy(logits_BL, labels_B) if labels_B.numel() else logits_BL.sum()
