"""The floating-point operations that each work needs, whoever does it and however.

A multiplication and an addition count two. For a token that passes all L layers, with N the layers' matrix entries and A
those of the adapter beside them, forward:

    2 N + 2 A + 4 L H c          H: heads x head size; c: the tokens it attends to, itself included (q k^T and p v)

backward, with N frozen (gradient of the input only) and A trained (of input and weight; of q, k, v and p in attention):

    2 N + 4 A + 8 L H c

The head (V x D) is needed on response rows only: 2 V D forward, 2 V D for the gradient of the hidden state. A prompt is
needed once for all its completions, in the forward and in the backward pass. Nothing is counted for norms, activations,
softmax, the optimiser or sampling, nor for anything computed twice to save memory: what a program does beyond these figures
lowers its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# A prompt's tokens and those of each of its completions.
Shared = tuple[int, Sequence[int]]


@dataclass(frozen=True)
class Shape:
    """What of a Llama-like model the count depends on, and the rank of adapters on all its linear layers (0: none)."""

    layers: int
    hidden: int
    attention: int  # heads x head size
    keys: int  # key/value heads x head size
    inner: int
    vocabulary: int
    rank: int

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's linear maps: q, k, v, o, gate, up, down."""
        d, a, k, f = self.hidden, self.attention, self.keys, self.inner
        return [(d, a), (d, k), (d, k), (a, d), (d, f), (d, f), (f, d)]

    @property
    def weights(self) -> int:
        return self.layers * sum(a * b for a, b in self.matrices)

    @property
    def adapter(self) -> int:
        return self.layers * self.rank * sum(a + b for a, b in self.matrices)

    @property
    def head(self) -> int:
        return self.vocabulary * self.hidden


def shape_of(config: dict[str, Any], rank: int) -> Shape:
    """From a Llama-like model's config.json."""
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        attention=config["num_attention_heads"] * size,
        keys=config["num_key_value_heads"] * size,
        inner=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        rank=rank,
    )


def attended(shared: Sequence[Shared]) -> int:
    """Sum over all tokens of the tokens each attends to; a prompt's tokens are there once."""
    total = 0
    for prompt, responses in shared:
        total += prompt * (prompt + 1) // 2
        total += sum(prompt * response + response * (response + 1) // 2 for response in responses)
    return total


def num_tokens(shared: Sequence[Shared]) -> int:
    return sum(prompt + sum(responses) for prompt, responses in shared)


def num_response_tokens(shared: Sequence[Shared]) -> int:
    return sum(sum(responses) for _, responses in shared)


def forward(shape: Shape, shared: Sequence[Shared], *, adapter: bool, head: bool) -> float:
    """Layers on every token, and the head on response rows."""
    layers = 2 * (shape.weights + adapter * shape.adapter) * num_tokens(shared)
    attention = 4 * shape.layers * shape.attention * attended(shared)
    return layers + attention + head * 2 * shape.head * num_response_tokens(shared)


def training(shape: Shape, shared: Sequence[Shared], *, head: bool) -> float:
    """Forward and backward through adapter and frozen base."""
    backward = (2 * shape.weights + 4 * shape.adapter) * num_tokens(shared)
    attention = 8 * shape.layers * shape.attention * attended(shared)
    return (
        forward(shape, shared, adapter=True, head=head)
        + backward
        + attention
        + head * 2 * shape.head * num_response_tokens(shared)
    )


def needed(work: str, shape: Shape, shared: Sequence[Shared], *, other: Sequence[Shared] = (), epochs: int = 1) -> float:
    """Of all timed steps of a work together.

    shared: prompts with their completions. other: what is read without learning besides (KTO's mismatched completions, whose
    prompts are in `shared` already). epochs: passes of PPO and GRPO over their completions.
    Sampling counts as one forward pass over prompt and completion, from which log-probs and values come as well, so that online
    methods need one more forward pass of the reference, one of PPO's reward model (no head) and the passes that learn.
    """
    if work.startswith("generate"):
        return forward(shape, shared, adapter=False, head=True)
    if work == "reward":
        return training(shape, shared, head=False)
    if work in ("sft", "train"):
        return training(shape, shared, head=True)
    reference = forward(shape, shared, adapter=False, head=True)
    if work == "dpo":
        return reference + training(shape, shared, head=True)
    if work == "kto":
        lent = sum(forward(shape, _alone(other), adapter=adapter, head=True) for adapter in (False, True))
        lent += 2 * 4 * shape.layers * shape.attention * sum(prompt * sum(responses) for prompt, responses in other)
        return reference + training(shape, shared, head=True) + lent
    if work in ("ppo", "grpo"):
        sampling = forward(shape, shared, adapter=True, head=True)
        reward = forward(shape, shared, adapter=True, head=False) if work == "ppo" else 0.0
        return sampling + reference + reward + epochs * training(shape, shared, head=True)
    raise KeyError(work)


def _alone(shared: Sequence[Shared]) -> list[Shared]:
    """The completions without their prompts."""
    return [(0, responses) for _, responses in shared]
