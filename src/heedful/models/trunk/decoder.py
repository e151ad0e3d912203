"""The trunk of a Llama-shaped model, computed over tokens laid end to end.

The weights are those of the Hugging Face model, whose modules go on working: this is another way through them, in which hardly
anything is padded, a prompt is computed once for all its responses, and a layer is two functions around the attention.
"""

# N tokens laid end to end, D hidden size, Q query width (H E), W key and value width (J E), F feed-forward size

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Low(NamedTuple):
    """One LoRA pair, y += scale (x A^T) B^T; A (r, in), B (out, r), float32."""

    a: Tensor
    b: Tensor
    scale: float


class Linear(NamedTuple):
    """A linear map of one or several projections that read the same input. weight (out, in), bias (out) or None."""

    weight: Tensor
    bias: Tensor | None
    sizes: list[int]


class Layer(NamedTuple):
    """The frozen weights of one layer. q_norm, k_norm: (E,) where the family has them."""

    qkv: Linear
    out: Linear
    gate_up: Linear
    down: Linear
    norm: Tensor
    norm_after: Tensor
    q_norm: Tensor | None
    k_norm: Tensor | None


def apply(x_ND: Tensor, linear: Linear, low: Sequence[Low | None]) -> Tensor:
    """x W^T + b, and the LoRA terms of those projections that have one."""
    y = F.linear(x_ND, linear.weight, linear.bias)
    present = [pair for pair in low if pair is not None]
    if not present:
        return y
    # One product for all A's; the B's stand on the diagonal of one matrix, so that theirs is one as well.
    inner = F.linear(x_ND, torch.cat([pair.a for pair in present]).to(x_ND.dtype))
    rank, columns, first = inner.shape[1], [], 0
    for size, pair in zip(linear.sizes, low, strict=True):
        if pair is None:
            columns.append(linear.weight.new_zeros(size, rank))
            continue
        width = pair.a.shape[0]
        columns.append(F.pad((pair.b * pair.scale).to(x_ND.dtype), (first, rank - first - width)))
        first += width
    return torch.addmm(y, inner, torch.cat(columns).T)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm in float32, over the last dimension."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def _rotate(x_NHE: Tensor, cos_NE: Tensor, sin_NE: Tensor) -> Tensor:
    half = x_NHE.shape[-1] // 2
    turned = torch.cat((-x_NHE[..., half:], x_NHE[..., :half]), dim=-1)
    return x_NHE * cos_NE[:, None] + turned * sin_NE[:, None]


def before_attention(
    x_ND: Tensor, cos_NE: Tensor, sin_NE: Tensor, layer: Layer, low: Sequence[Low | None], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (scaled), keys and values of one layer, (N, heads, E)."""
    size = cos_NE.shape[-1]
    projected = apply(rms_norm(x_ND, layer.norm, eps), layer.qkv, low)
    q, k, v = (part.view(len(x_ND), -1, size) for part in torch.split(projected, layer.qkv.sizes, dim=-1))
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = rms_norm(q, layer.q_norm, eps), rms_norm(k, layer.k_norm, eps)
    return _rotate(q, cos_NE, sin_NE) * size**-0.5, _rotate(k, cos_NE, sin_NE), v.contiguous()


def after_attention(x_ND: Tensor, attended_NQ: Tensor, layer: Layer, low: Sequence[Low | None], eps: float) -> Tensor:
    """The layer's output: the attention's projection and the feed-forward part, each added to its input."""
    x_ND = x_ND + apply(attended_NQ, layer.out, low[:1])
    gate, up = apply(rms_norm(x_ND, layer.norm_after, eps), layer.gate_up, low[1:3]).chunk(2, dim=-1)
    return x_ND + apply(F.silu(gate) * up, layer.down, low[3:])
