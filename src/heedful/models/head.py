"""The head of a reward model: from a trunk's hidden states to a scalar, or to the logits of two labels."""

# B batch, S prompt + response tokens, D hidden size, L labels

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import ModelError


class RewardHead(nn.Module):
    """Pools hidden states and maps them to a scalar, or to a logit for each of two labels, of which one is the reward.

    Zero to begin with, so that training starts at log 2. labels: none for a scalar; wanted: the label whose logit counts.
    """

    def __init__(self, hidden_size: int, pooling: str, labels: Sequence[str] = (), wanted: str = "") -> None:
        super().__init__()
        self.pooling = pooling
        self.labels = tuple(labels)
        self.index = self.labels.index(wanted) if labels else 0
        self.linear = nn.Linear(hidden_size * (2 if pooling == "last+mean" else 1), max(1, len(labels)))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def want(self, label: str) -> None:
        """Makes another label's logit the reward."""
        if label not in self.labels:
            listed = ", ".join(map(repr, self.labels)) or "none, it was trained on pairs"
            raise ModelError(f"the reward model has no label {label!r}; its labels: {listed}")
        self.index = self.labels.index(label)

    def forward(self, hidden_BSD: Tensor, read_mask_BS: Tensor) -> Tensor:
        """Rewards (B,), float32, of what `pool` makes of the arguments."""
        return self.logits(hidden_BSD, read_mask_BS)[:, self.index]

    def logits(self, hidden_BSD: Tensor, read_mask_BS: Tensor) -> Tensor:
        """One column a label, or a single one, (B, L), float32."""
        return self.linear(self.pool(hidden_BSD, read_mask_BS))  # type: ignore[no-any-return]

    def pool(self, hidden_BSD: Tensor, read_mask_BS: Tensor) -> Tensor:
        """What the linear map reads, (B, D or 2 D). read_mask_BS: True on the places to pool; "last" takes the last of them."""
        if not bool(read_mask_BS.any(dim=1).all()):
            raise ModelError("a sequence without a token to read has no reward; drop the prompt or the answer that is empty")
        parts = []
        if self.pooling != "mean":
            places_S = torch.arange(read_mask_BS.shape[1], device=read_mask_BS.device)
            last_B = torch.where(read_mask_BS, places_S, -1).max(dim=1).values
            parts.append(hidden_BSD[torch.arange(len(last_B), device=last_B.device), last_B].float())
        if self.pooling != "last":
            weights_BS = read_mask_BS.float() / read_mask_BS.sum(dim=1, keepdim=True)
            parts.append(torch.einsum("bs,bsd->bd", weights_BS, hidden_BSD.float()))
        # Hidden states of a trunk differ in scale by orders of magnitude between models; the norm takes that away.
        return torch.cat([F.layer_norm(part, part.shape[-1:]) for part in parts], dim=-1)
