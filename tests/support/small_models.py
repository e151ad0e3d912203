"""Small models of random weights, of each family that the packed trunk knows and of some that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_model
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from heedful.models.policy import POLICY, LanguageModel
from heedful.models.trunk.packed import pack

# Two ways to a sum in another order; of three layers in float32 six digits stay.
FLOAT32 = 2e-5
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 2,
}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SMALL),
    "llama with biases": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "llama, long rope": LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}, head_dim=16
    ),
    "mistral": MistralConfig(**SMALL, sliding_window=None),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL, head_dim=16),
}
OTHERS: dict[str, Any] = {
    "gpt2": GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=2, bos_token_id=1),
    "mistral, sliding": MistralConfig(**SMALL, sliding_window=8),
    "llama, gelu": LlamaConfig(**SMALL, hidden_act="gelu"),
}

PROMPTS = [[5, 6, 7, 8], [9, 10], [5, 6, 7, 8], [11, 12, 13]]
RESPONSES = [[20, 21, 2], [22, 2], [23, 24, 25, 26], []]


def build(config: Any, folder: Path, *, dtype: torch.dtype = torch.float32, **options: bool) -> LanguageModel:
    """A model of random weights that are large enough to tell a wrong one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        causal = AutoModelForCausalLM.from_config(config)
        for name, weight in causal.named_parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.6 if "embed" in name else 0.25)
            elif "bias" in name or "norm" in name:
                torch.nn.init.uniform_(weight, 0.5, 1.5)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model.make(folder / "tokenizer"))
    return LanguageModel(causal.to(dtype), tokenizer, "tiny", **options)


def adapted(model: LanguageModel, name: str = POLICY, targets: tuple[str, ...] = TARGETS, layers: int = 0) -> LanguageModel:
    model.add_adapter(name, rank=4, alpha=8, targets=targets, layers=layers, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.adapter_parameters(name).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    for parameter in model.adapter_parameters(name).values():
        parameter.requires_grad_(True)
    return model


def own_forward(model: LanguageModel, adapter: str | None) -> Tensor:
    """Hidden states by the model's own forward pass, one response at a time, in the order of the packed tokens."""
    packed = pack(PROMPTS, RESPONSES, device=model.device)
    found: dict[int, Tensor] = {}
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        ids = torch.tensor([prompt + response], device=model.device)
        hidden = model.hidden(ids, torch.ones_like(ids, dtype=torch.bool), adapter=adapter)[0]
        for place, row in zip(packed.places(i), hidden, strict=True):
            found.setdefault(place, row)
    return torch.stack([found[place] for place in range(len(packed.ids_N))])


def gradients(model: LanguageModel, hidden: Tensor, name: str = POLICY) -> dict[str, Tensor]:
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3)).to(hidden)
    parameters = model.adapter_parameters(name)
    found = torch.autograd.grad((hidden * weights).float().sum(), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))
