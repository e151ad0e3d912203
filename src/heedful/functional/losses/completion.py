"""Supervised fine-tuning: cross-entropy of the completion's tokens, the prompt's left out."""

# B batch, T response tokens

from __future__ import annotations

import torch
from torch import Tensor

from heedful.functional.masking import require_same_shape


def completion_loss(logprobs_BT: Tensor, response_mask_BT: Tensor, *, num_tokens: int) -> Tensor:
    """-sum log pi(y_t | x, y_<t) / num_tokens over response tokens, in nats a token; a scalar.

    The demonstration term of Ouyang et al. 2022 (section 3.5): cross-entropy on what was written, end of text included.
    logprobs_BT: (B, T) natural-log probabilities. response_mask_BT: True on response tokens. num_tokens: response tokens of
    the *whole* optimiser batch, so that accumulated parts add up to one batch and a long completion weighs what its tokens
    weigh. Gradients reach logprobs. Raises ShapeError when shapes differ.
    """
    require_same_shape(logprobs_BT=logprobs_BT, response_mask_BT=response_mask_BT)
    return -torch.where(response_mask_BT, logprobs_BT, torch.zeros_like(logprobs_BT)).sum() / num_tokens
