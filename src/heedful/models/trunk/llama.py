"""Walking through a Hugging Face model of Llama's shape the packed way (decoder.py), with its adapters."""

# N tokens laid end to end, D hidden size, E head size

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch._functorch.config
import torch._inductor.config
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from heedful.models.trunk.attention import Layout, Plan, attend, plan
from heedful.models.trunk.decoder import Layer, Linear, Low, after_attention, before_attention, rms_norm

# A batch's tokens are rounded up to a multiple: for each new number of rows oneDNN writes a kernel, which takes a millisecond,
# and keeps it; all kernels of one number take about 16 MB.
ROUND = 32
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Of what the compiler could keep of a layer for the backward. At this it takes norms and the product before `down` a second
# time, a third of the memory; at half, gate and up as well, which are products of their own.
KEPT_SHARE = 0.7
# A layer's number, q (N, H, E), k and v (N, J, E) -> what they attend to, (N, H E).
Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]
Adapted = tuple[Low | None, ...]  # of q, k, v, o, gate, up, down
NONE: Adapted = (None,) * 7


def unsupported(causal: Any) -> str | None:
    """Why this model is not walked through the packed way; None when it is."""
    config = causal.config
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder reads its prompts"
    if config.model_type not in FAMILIES:
        return f"models of type {config.model_type!r} are not of Llama's shape"
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") in ("dynamic", "longrope"):
        return "its positions turn with the longest sequence that is read beside them"
    if config.hidden_act != "silu":
        return f"its feed-forward layers use {config.hidden_act}"
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or []) or (
        config.model_type == "mistral" and config.sliding_window is not None
    ):
        return "its attention slides over a window"
    if not all(type(_base(linear)) is nn.Linear for layer in causal.base_model.layers for linear in _linears(layer)):
        return "its linear layers are not plain ones"
    return None


def _linears(layer: Any) -> list[Any]:
    attention, feed = layer.self_attn, layer.mlp
    heads = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    return [*heads, feed.gate_proj, feed.up_proj, feed.down_proj]


def _base(linear: Any) -> Any:
    return getattr(linear, "base_layer", linear)


class PackedTrunk:
    """The layers of one model. Weights that read the same input are one matrix, of which the model's own become views."""

    def __init__(self, causal: Any, *, compiled: bool, recompute: bool) -> None:
        self.model = causal.base_model
        config = causal.config
        self.num_heads, self.num_kv_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.ratio = self.num_heads // self.num_kv_heads
        self.eps = float(config.rms_norm_eps)
        self.recompute = recompute
        self.compiled = compiled
        self.met: set[bool] = set()  # with gradients, and without: for which of them lanes have met compiled layers
        self.layers = [_layer(layer) for layer in self.model.layers]
        self.head_size = self.layers[0].qkv.sizes[0] // self.num_heads
        self.adapted: dict[str | None, list[Adapted]] = {None: [NONE] * len(self.layers)}
        self.unknown: set[str | None] = set()
        self.before: Callable[..., tuple[Tensor, Tensor, Tensor]] = before_attention
        self.after: Callable[..., Tensor] = after_attention
        if compiled:
            _prepare_compiler()
            self.before, self.after = torch.compile(before_attention), torch.compile(after_attention)

    def knows(self, adapter: str | None) -> bool:
        """Whether the adapter is made of plain LoRA pairs on these layers and nothing else."""
        if adapter in self.unknown:
            return False
        if adapter is not None and adapter not in self.adapted:
            named = sum(f".{adapter}." in key for key, _ in self.model.named_parameters())
            linears = [_linears(layer) for layer in self.model.layers]
            if named != 2 * sum(_is_plain(linear, adapter) for row in linears for linear in row):
                self.unknown.add(adapter)
                return False
            self.adapted[adapter] = [tuple(_low(linear, adapter) for linear in row) for row in linears]
        return True

    def lowest(self, name: str | None) -> int:
        """How many layers, from the input on, an adapter leaves as they are."""
        return next((i for i, pairs in enumerate(self.adapted[name]) if any(pairs)), len(self.layers))

    def plan(self, layout: Layout) -> Plan:
        """The attention's tables for a batch; the same for all layers and adapters."""
        weight = self.layers[0].qkv.weight
        return plan(layout, num_heads=self.num_heads, num_kv_heads=self.num_kv_heads, dtype=weight.dtype, device=weight.device)

    def rotary(self, positions_N: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (N, E) of positions, as the model's own module computes them."""
        cos, sin = self.model.rotary_emb(self.layers[0].norm, positions_N[None])
        return cos[0], sin[0]

    def walk(
        self,
        x_ND: Tensor,
        positions_N: Tensor,
        tables: Plan,
        adapter: str | None,
        *,
        start: int = 0,
        stop: int | None = None,
        keep: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """Layers start ... stop - 1. keep: is given each layer's number, keys and values (N, J, E)."""
        num_tokens = len(x_ND)
        more = -num_tokens % ROUND
        # Rows that nobody attends to and nobody reads.
        x_ND, positions_N = F.pad(x_ND, (0, 0, 0, more)), F.pad(positions_N, (0, more))
        cos, sin = self.rotary(positions_N)
        pairs = self.adapted[adapter]
        recompute = self.recompute and torch.is_grad_enabled()

        def over_prompts(i: int, q_NHE: Tensor, k_NJE: Tensor, v_NJE: Tensor) -> Tensor:
            if keep is not None:
                keep(i, k_NJE, v_NJE)
            found_NQ = attend(q_NHE[:num_tokens], k_NJE[:num_tokens], v_NJE[:num_tokens], tables)
            return F.pad(found_NQ, (0, 0, 0, more))

        for i in range(start, len(self.layers) if stop is None else stop):
            layer = partial(self._layer, i, cos=cos, sin=sin, pairs=pairs[i], attention=over_prompts)
            x_ND = checkpoint(layer, x_ND, use_reentrant=False, preserve_rng_state=False) if recompute else layer(x_ND)
        return x_ND[:num_tokens]

    def advance(self, x_AD: Tensor, positions_A: Tensor, adapter: str | None, attention: Attention) -> Tensor:
        """All layers for one token a row, the attention being the caller's."""
        cos, sin = self.rotary(positions_A)
        for i, pairs in enumerate(self.adapted[adapter]):
            x_AD = self._layer(i, x_AD, cos=cos, sin=sin, pairs=pairs, attention=attention)
        return x_AD

    def _layer(self, i: int, x_ND: Tensor, *, cos: Tensor, sin: Tensor, pairs: Adapted, attention: Attention) -> Tensor:
        self._dynamic(x_ND, cos, sin)
        q, k, v = self.before(x_ND, cos, sin, self.layers[i], pairs[:3], self.eps)
        attended = attention(i, q, k, v)
        self._dynamic(attended)
        return self.after(x_ND, attended, self.layers[i], pairs[3:], self.eps)

    def _dynamic(self, *tensors: Tensor) -> None:
        """One compiled function for all numbers of tokens."""
        if self.compiled:
            for tensor in tensors:
                if len(tensor) > 1:  # a single row gets a function of its own, as torch.compile would have it
                    torch._dynamo.mark_dynamic(tensor, 0)

    def embed(self, ids_N: Tensor) -> Tensor:
        return self.model.embed_tokens(ids_N)  # type: ignore[no-any-return]

    def normal(self, x_ND: Tensor) -> Tensor:
        """What the heads read."""
        return rms_norm(x_ND, self.model.norm.weight, self.eps)


def _prepare_compiler() -> None:
    # One function for each of: with and without gradient, adapter, its scale, a single row. Beyond the limit torch would go on
    # uncompiled, and the last bits would depend on the order in which they were met.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.automatic_dynamic_shapes = False  # what is marked is dynamic: not what happens to differ
    torch._functorch.config.activation_memory_budget = KEPT_SHARE
    if "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ:
        torch._inductor.config.compile_threads = 1  # workers would each hold a copy of torch


def _layer(layer: Any) -> Layer:
    q, k, v, out, gate, up, down = _linears(layer)
    q_norm, k_norm = (getattr(layer.self_attn, name, None) for name in ("q_norm", "k_norm"))
    return Layer(
        _joined([q, k, v]),
        _joined([out]),
        _joined([gate, up]),
        _joined([down]),
        layer.input_layernorm.weight.detach(),
        layer.post_attention_layernorm.weight.detach(),
        None if q_norm is None else q_norm.weight.detach(),
        None if k_norm is None else k_norm.weight.detach(),
    )


def _joined(linears: Sequence[Any]) -> Linear:
    bases = [_base(linear) for linear in linears]
    sizes = [int(base.weight.shape[0]) for base in bases]
    biases = [base.bias for base in bases]
    bias = torch.cat([b.detach() for b in biases]) if biases[0] is not None else None
    if len(bases) == 1:
        return Linear(bases[0].weight.detach(), bias, sizes)
    weight = torch.cat([base.weight.detach() for base in bases])
    for base, part in zip(bases, torch.split(weight, sizes), strict=True):
        base.weight.data = part
    return Linear(weight, bias, sizes)


def _is_plain(linear: Any, name: str) -> bool:
    """Whether a linear layer has a plain LoRA pair of that name. Dropout does not count: nothing here drops."""
    return name in getattr(linear, "lora_A", {}) and name not in linear.lora_variant and not linear.lora_bias.get(name)


def _low(linear: Any, name: str) -> Low | None:
    if name not in getattr(linear, "lora_A", {}):
        return None
    return Low(linear.lora_A[name].weight, linear.lora_B[name].weight, float(linear.scaling[name]))
