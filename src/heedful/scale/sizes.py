"""What a step of PPO needs of GPUs: memory and time of models of 1, 8, 70 billion weights, from counted bytes and operations.

Memory follows engine/memory.py, term by term; time is the longer of what a device computes and what it reads. A multiplication
and an addition count two. docs/operations.md sets the same formulas beside what was measured on the 135M model.
"""

# V vocabulary, D hidden size, Q query width (H E), W key and value width (J E), F feed-forward size, L layers

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heedful.engine import memory
from heedful.engine.generation import MAX_ROWS
from heedful.engine.memory import Shape, Work
from heedful.errors import ConfigError
from heedful.models.sources import model_config

CONTEXT = 700 * memory.MB  # the driver's own on a GPU, and what kernels take for themselves; assumed, not measured
LEFT_FREE = 0.1  # of a GPU's memory, cut up between allocations; assumed


@dataclass(frozen=True)
class Device:
    """flops_per_s: of bfloat16 products, as the maker states them, dense. bytes_per_s: of its memory. num_bytes: of memory.

    compute_share, read_share: how much of the two is reached; the defaults are assumed.
    """

    name: str
    flops_per_s: float
    bytes_per_s: float
    num_bytes: float
    compute_share: float = 0.4
    read_share: float = 0.6


DEVICES = {
    "h100": Device("H100 SXM 80 GB", 989e12, 3.35e12, 80e9),
    "h200": Device("H200 SXM 141 GB", 989e12, 4.8e12, 141e9),
    "a100": Device("A100 SXM 80 GB", 312e12, 2.04e12, 80e9),
    "l4": Device("L4 24 GB", 121e12, 0.3e12, 24e9),
}

# Sizes of Llama's models of 1, 8 and 70 billion weights, as their config.json files give them.
SHAPES = {
    "1B": Shape(128_256, 2048, 16, 2048, 512, 8192, True, 2, False, 0),
    "8B": Shape(128_256, 4096, 32, 4096, 1024, 14_336, False, 2, False, 0),
    "70B": Shape(128_256, 8192, 80, 8192, 1024, 28_672, False, 2, False, 0),
}


def device_named(name: str) -> Device:
    """Raises ConfigError naming those that are known."""
    if name not in DEVICES:
        raise ConfigError(f"device {name!r} is not known; known are {', '.join(DEVICES)}")
    return DEVICES[name]


def shape_named(name: str) -> Shape:
    """Of SHAPES, or of a model whose config.json is read. Raises ModelError where there is none, or it is of another family."""
    return SHAPES.get(name) or memory.shape_of(model_config(name), name)


@dataclass(frozen=True)
class StepSize:
    """A step of PPO over all devices. prompt_tokens, response_tokens: of each rollout."""

    episodes: int = 512
    samples_per_prompt: int = 4
    prompt_tokens: int = 256
    response_tokens: int = 256
    epochs: int = 2
    rank: int = 16
    adapted_layers: int = 0  # 0: all
    width: int = 2

    def work(self, num_devices: int) -> Work:
        """As memory.py counts it, of one device's share."""
        rows = -(-self.episodes // num_devices)
        whole = self.prompt_tokens + self.response_tokens
        return Work(
            width=self.width,
            part_tokens=max(512, whole),
            prompt_tokens=self.prompt_tokens,
            response_tokens=self.response_tokens,
            rows=min(MAX_ROWS, rows),
            rank=self.rank,
            adapted_layers=self.adapted_layers,
            num_lengths=0,
            rollout_tokens=rows * whole,
        )


def layer_weights(shape: Shape) -> int:
    """Matrix entries of a layer."""
    return shape.hidden * (2 * shape.queries + 2 * shape.keys + 3 * shape.feed_forward)


def held(shape: Shape, size: StepSize, num_devices: int, *, shards: int = 1) -> dict[str, int]:
    """Bytes on one device by role. shards: devices that hold the layers of the frozen base together (scale.fsdp); each layer is
    whole while it is read, and embedding and head always are.

    As memory.peak, without what a processor's allocator and compiled products take.
    """
    work = size.work(num_devices)
    rows = work.part_tokens // 2
    base = memory.base_weights(shape, work)
    if shards > 1:
        layer = work.width * layer_weights(shape)
        cut = shape.layers * layer
        base = base - cut + cut // shards + 2 * layer  # a layer in use and the next that is on its way
    kept = work.adapted(shape) * memory.layer_activations(shape, work) + 3 * work.width * work.part_tokens * shape.feed_forward
    phases = max(kept, memory.reading(shape, work, work.scored_tokens), memory.sampling(shape, work))
    tiles = max(memory.entropy_tiles(shape, work, rows), memory.comparison_tiles(shape, work, work.rows * work.response_tokens))
    return {
        "context": CONTEXT,
        "base": base,
        "adapters": memory.trained_adapter(shape, work) + memory.FLOAT32 * memory.adapter_weights(shape, work),
        "states": memory.below(shape, work),
        "phases": phases,
        "tiles": tiles,
    }


def least_shards(shape: Shape, size: StepSize, num_devices: int, device: Device) -> int | None:
    """How many devices must hold the base together so that it fits: 1, or a power of two; None where all are too few."""
    shards = 1
    while shards <= num_devices:
        if sum(held(shape, size, num_devices, shards=shards).values()) <= (1 - LEFT_FREE) * device.num_bytes:
            return shards
        shards *= 2
    return None


def operations(shape: Shape, size: StepSize) -> dict[str, float]:
    """Of a whole step, all devices together, by phase: rollout, measure, gradient.

    A token forward through L layers: 2 N + 4 L Q c, with N their matrix entries and c the tokens that it attends to, half of
    its sequence on average; an adapter of A numbers adds 2 A. The head on responses: 2 V D. Backward through a frozen base:
    2 N + 4 A + 8 L Q c of the adapted layers. Prompts count once for their samples. Layers below the lowest adapted one
    are computed once, by the reference; reward model and passes that learn begin above them. The reward model reads no head.
    """
    work = size.work(1)
    layers, learned = shape.layers, work.adapted(shape)
    context = (size.prompt_tokens + size.response_tokens) / 2
    adapter = memory.adapter_weights(shape, work)
    responses = size.episodes * size.response_tokens
    tokens = responses + size.prompt_tokens * size.episodes / size.samples_per_prompt
    one = 2 * layer_weights(shape) + 4 * shape.queries * context
    head = 2.0 * shape.vocabulary * shape.hidden
    back = 2 * layer_weights(shape) + 8 * shape.queries * context
    forward = tokens * (learned * one + 2 * adapter)
    return {
        "rollout": tokens * (layers * one + 2 * adapter) + responses * head,
        # the reference reads all; log-probs of policy and reference have a head each; then the reward model
        "measure": tokens * layers * one + 2 * responses * head + forward,
        "gradient": size.epochs * (forward + tokens * (learned * back + 4 * adapter) + 2 * responses * head),
    }


def seconds(shape: Shape, size: StepSize, num_devices: int, device: Device, *, shards: int = 1) -> dict[str, float]:
    """Of a step by phase, data parallel over the devices; of each token, the longer of computing and reading.

    A step of decoding reads the base once (a device its shard) and the keys and values of its rows, and computes a token of
    each row; rows beyond MAX_ROWS come after. Of several shards what they send to one another is not counted, nor
    that a backward reads forward once more: theirs is a lower bound.
    """
    flops, reads = device.flops_per_s * device.compute_share, device.bytes_per_s * device.read_share
    counted = operations(shape, size)
    work = size.work(num_devices)
    responses, tokens = size.episodes * size.response_tokens, counted["rollout"]
    shared_prompt = size.prompt_tokens * size.episodes / size.samples_per_prompt
    prefill = tokens * shared_prompt / (shared_prompt + responses) / num_devices / flops
    # A group of shards samples its rows together, so each of its devices reads its part for all of them.
    rows = work.rows * shards
    waves = -(-size.episodes // (rows * (num_devices // shards))) if rows else 0
    kept = 2 * size.width * shape.keys * shape.layers * rows * (size.prompt_tokens + size.response_tokens / 2)
    read = (size.width * shape.num_weights + kept) / shards / reads
    computed = rows * tokens / (shared_prompt + responses) / shards / flops
    decode = waves * size.response_tokens * max(read, computed)
    return {
        "rollout": prefill + decode,
        "measure": counted["measure"] / num_devices / flops,
        "gradient": counted["gradient"] / num_devices / flops,
    }


def estimate(name: str, shape: Shape, size: StepSize, num_devices: int, device: Device) -> dict[str, Any]:
    """A row of the table. whole_bytes: of one device that holds the whole base.

    shards: how many must hold it together; None where all are too few; then there are no seconds.
    """
    if num_devices < 1 or size.episodes < 1:
        raise ConfigError(f"{num_devices} devices and {size.episodes} episodes: a step needs one of each at least")
    shards = least_shards(shape, size, num_devices, device)
    by_role = held(shape, size, num_devices)
    took = seconds(shape, size, num_devices, device, shards=shards) if shards else None
    return {
        "model": name,
        "num_weights": shape.num_weights,
        "devices": num_devices,
        "device": device.name,
        "whole_bytes": sum(by_role.values()),
        "bytes": by_role,
        "shards": shards,
        "shard_bytes": sum(held(shape, size, num_devices, shards=shards or num_devices).values()),
        "seconds": took,
        "step_s": sum(took.values()) if took else None,
        "tokens_per_s": size.episodes * size.response_tokens / sum(took.values()) if took else None,
    }
