"""How much memory a model needs, from its shape alone: what each role holds, and the peak of each stage on a processor.

All sizes are bytes. Each function states its terms; docs/memory.md sets their sums beside measured peaks.
"""

# V vocabulary, D hidden size, Q query width (H E), W key and value width (J E), F feed-forward size, N tokens of a part, r rank

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from heedful.engine.scoring import MAX_TOKENS
from heedful.errors import ModelError
from heedful.functional.logprobs import TILE_ROWS
from heedful.models.trunk.below import KEPT_BYTES
from heedful.models.trunk.cache import BLOCK, PREFILL_TOKENS
from heedful.models.trunk.llama import FAMILIES

MB = 10**6
# Resident beside the weights: Python 10, torch 220, transformers and peft 170, heedful 20, the tokenizer and what a model's
# loading and first use bring 80 (Linux, the processor build of torch; measured).
PROCESS = 500 * MB
# glibc gives blocks above this size back to the system when they are freed; smaller ones stay with the process for later.
GIVEN_BACK = 32 * 2**20
# oneDNN makes code for each new shape of a bfloat16 product and keeps 1024 of them. A part with a number of tokens not met
# before brings the shapes of one pass forward and back, the same in all layers; at 35 of them the store is full (measured).
CODE_PER_LENGTH = 17 * MB
MOST_LENGTHS = 35
FLOAT32 = 4
TYPES = {"float32": 4, "bfloat16": 2, "float16": 2}
STAGES = ("reward", "dpo", "ppo")


@dataclass(frozen=True)
class Shape:
    """What of a Llama-shaped model decides its memory. stored: bytes of a weight in its file."""

    vocabulary: int
    hidden: int
    layers: int
    queries: int
    keys: int
    feed_forward: int
    tied: bool
    stored: int
    qkv_bias: bool
    qk_norm: int  # the head's size where queries and keys are normed, else 0

    @property
    def num_weights(self) -> int:
        """Embedding (and head, where it is no embedding), and of each layer the linear maps, biases and norms."""
        d, joined = self.hidden, self.queries + 2 * self.keys
        layer = d * joined + self.queries * d + 3 * d * self.feed_forward + 2 * d
        layer += (joined if self.qkv_bias else 0) + 2 * self.qk_norm
        return self.vocabulary * d * (1 if self.tied else 2) + self.layers * layer + d


def shape_of(config: Mapping[str, Any], source: str) -> Shape:
    """From a model's config.json. Raises ModelError for other families and for a config without sizes."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ModelError(
            f"{source}: models of type {family!r} are computed by their own code, whose memory is not predicted; "
            f"known are {', '.join(FAMILIES)}"
        )
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        size = int(config.get("head_dim") or hidden // heads)
        return Shape(
            int(config["vocab_size"]),
            hidden,
            int(config["num_hidden_layers"]),
            heads * size,
            int(config.get("num_key_value_heads") or heads) * size,
            int(config["intermediate_size"]),
            bool(config.get("tie_word_embeddings", False)),
            TYPES.get(str(config.get("dtype") or config.get("torch_dtype") or "float32"), 4),
            family == "qwen2",
            size if family == "qwen3" else 0,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"{source}: config.json does not give the model's sizes ({type(error).__name__}: {error})") from None


@dataclass(frozen=True)
class Work:
    """What is done with the model. width: bytes of a frozen weight as it is computed with.

    part_tokens: tokens of one training part. lanes: parts that are computed side by side. prompt_tokens, response_tokens:
    longest. rows: answers that are sampled side by side. scored_tokens: read at once without gradient. num_lengths: different
    numbers of tokens that the parts of the job have.
    """

    width: int
    part_tokens: int
    prompt_tokens: int
    response_tokens: int
    rows: int
    rank: int = 16
    adapted_layers: int = 0  # 0: all
    recompute: bool = False
    tempered: bool = False  # temperature other than 1
    entropy: bool = True  # the entropy has a gradient
    scored_tokens: int = MAX_TOKENS
    num_lengths: int = MOST_LENGTHS
    lanes: int = 1
    rollout_tokens: int = 0  # prompts and responses of a batch of rollouts

    def adapted(self, shape: Shape) -> int:
        return min(self.adapted_layers or shape.layers, shape.layers)


def base_weights(shape: Shape, work: Work) -> int:
    """The one base that policy, reference, value and reward model share."""
    return work.width * shape.num_weights


def adapter_weights(shape: Shape, work: Work) -> int:
    """Numbers in one adapter on all seven linear maps: r (in + out) of each, adapted layers."""
    d, q, w, f = shape.hidden, shape.queries, shape.keys, shape.feed_forward
    return work.adapted(shape) * work.rank * ((d + q) + 2 * (d + w) + (q + d) + 3 * (d + f))


def trained_adapter(shape: Shape, work: Work) -> int:
    """Float32 weights, gradients and AdamW's two moments: 16 a number. Several lanes have gradients each, 4 a number."""
    own = work.lanes if work.lanes > 1 else 0
    return (4 + own) * FLOAT32 * adapter_weights(shape, work)


def layer_activations(shape: Shape, work: Work) -> int:
    """What autograd keeps of one adapted layer for N tokens.

    A token: two norms' inputs in float32 (2 D) and their outputs (2 D); q, k, v (Q + 2 W); what was attended to (Q); gate and
    up, silu(gate), and the product that `down` reads (4 F); the inner states of the adapter's pairs (7 r). Where queries and
    keys are normed, their inputs in float32 (Q + W). Beside the tokens, the pairs as the matrices that the layer multiplies
    with: r (7 D + 4 Q + 6 W + 5 F). Products with frozen weights keep nothing.
    """
    d, q, w, f, r = shape.hidden, shape.queries, shape.keys, shape.feed_forward, work.rank
    token = FLOAT32 * (2 * d + (q + w if shape.qk_norm else 0)) + work.width * (2 * d + 2 * q + 2 * w + 4 * f + 7 * r)
    return token * work.part_tokens + work.width * r * (7 * d + 4 * q + 6 * w + 5 * f)


def freed_between(shape: Shape, work: Work) -> int:
    """Room behind a layer's temporaries: gate and up without and with the adapter's term, (N, 2 F) each, are freed when their
    sum is there, and whatever of the layer is kept by then lies behind them, where the next layer's do not fit. 0 where such a
    block is given back.
    """
    block = work.width * work.part_tokens * 2 * shape.feed_forward
    return 2 * block if block < GIVEN_BACK else 0


def activations(shape: Shape, work: Work) -> int:
    """Of the training parts of all lanes: each adapted layer's own and the room behind it, and in the backward three
    gradients (N, F).

    Keeping them, the next part finds its space cut up by gradients and compiled products: half as much room again (measured).
    Recomputing: each layer's input (N, D) and the room behind it, and the rest of one layer at a time.
    """
    layer, room = layer_activations(shape, work), freed_between(shape, work)
    passing = 3 * work.width * work.part_tokens * shape.feed_forward
    if work.recompute:
        part = work.adapted(shape) * (work.width * work.part_tokens * shape.hidden + room) + layer + passing
    else:
        part = work.adapted(shape) * (layer + room + room // 2) + passing
    return work.lanes * part


def reading(shape: Shape, work: Work, tokens: int) -> int:
    """A pass without gradient: gate and up three times (N, 2 F), four times (N, D)."""
    return work.width * tokens * (6 * shape.feed_forward + 4 * shape.hidden)


def _tiles(shape: Shape, work: Work, rows: int, *, held: int, most: int, heap: int) -> int:
    """Tiles one after another, float32 numbers an entry: `held` by the tile before while the next one's softmax is taken,
    `most` within a tile. heap: tiles in bfloat16, which stay with the process.
    """
    first = min(rows, TILE_ROWS)
    second = min(max(0, rows - TILE_ROWS), TILE_ROWS)
    softmax = 2  # logits and their quotient by the temperature, then the quotient and log-probs
    block = work.width * first * shape.vocabulary if work.width < FLOAT32 else 0
    large = FLOAT32 * shape.vocabulary * max(first * max(softmax, most), first * held + second * softmax)
    return large + (heap * block if block < GIVEN_BACK else 0)


def logprob_tiles(shape: Shape, work: Work, rows: int) -> int:
    """Log-probs with their slope, of `rows` tokens: log-probs and probabilities, 2 a (rows, V) entry."""
    return _tiles(shape, work, rows, held=2, most=2, heap=1)


def entropy_tiles(shape: Shape, work: Work, rows: int) -> int:
    """Their backward with an entropy bonus: log-probs, probabilities, gradient and two products, 5 an entry."""
    return _tiles(shape, work, rows, held=3, most=5, heap=2)


def comparison_tiles(shape: Shape, work: Work, rows: int) -> int:
    """Policy beside reference: two log-probs, probabilities, and two products of the divergence, 5 an entry."""
    return _tiles(shape, work, rows, held=3, most=5, heap=1)


def cache(shape: Shape, work: Work) -> int:
    """Keys and values of all rows in flight: 2 W a layer and place, rows as long as the longest, in whole blocks."""
    places = -(-(work.prompt_tokens + work.response_tokens) // BLOCK) * BLOCK
    return 2 * work.width * shape.keys * shape.layers * work.rows * places


def sampling(shape: Shape, work: Work) -> int:
    """The cache, and beside it the prompts' pass or a step's logits (in float32 twice: themselves and their exponentials)."""
    prompts = reading(shape, work, min(PREFILL_TOKENS, work.rows * work.prompt_tokens))
    logits = work.rows * shape.vocabulary * (work.width + FLOAT32 * (3 if work.tempered else 2))
    return cache(shape, work) + max(prompts, logits)


def below(shape: Shape, work: Work) -> int:
    """States that the lowest adapted layer reads, of each token of a batch of rollouts; what is beyond the room is not kept."""
    kept = work.adapted(shape) < shape.layers
    return min(KEPT_BYTES, work.width * shape.hidden * work.rollout_tokens) if kept else 0


def kernels(work: Work) -> int:
    """Code that oneDNN keeps for bfloat16 products, see CODE_PER_LENGTH."""
    return CODE_PER_LENGTH * min(work.num_lengths, MOST_LENGTHS) if work.width < FLOAT32 else 0


def loading(shape: Shape, work: Work) -> int:
    """While the model is read from its file, both are there."""
    return PROCESS + (work.width + shape.stored) * shape.num_weights


def peak(shape: Shape, work: Work, stage: str) -> int:
    """Of one stage ("reward", "dpo", "ppo"): what is there all the time, and on top the largest needs.

    Freed blocks below GIVEN_BACK serve the next phase, so of the phases' small blocks the largest sum counts: a training part,
    a pass without gradient, sampling. Tiles are larger, come and go, and add to whatever the process has kept by then. Half of
    a part's tokens are taken to be responses'.
    """
    rows = work.part_tokens // 2
    small = max(activations(shape, work), reading(shape, work, work.scored_tokens))
    standing = PROCESS + base_weights(shape, work) + trained_adapter(shape, work) + kernels(work)
    tiles = 0
    if stage == "dpo":
        tiles = work.lanes * logprob_tiles(shape, work, rows)
    elif stage == "ppo":
        standing += below(shape, work) + FLOAT32 * adapter_weights(shape, work)  # the reward model's, which learns no more
        small = max(small, sampling(shape, work))
        learning = entropy_tiles if work.entropy else logprob_tiles
        tiles = max(work.lanes * learning(shape, work, rows), comparison_tiles(shape, work, work.rows * work.response_tokens))
    return max(loading(shape, work), standing + small + tiles)


def by_role(shape: Shape, work: Work) -> dict[str, int]:
    """What holds how much, for `heedful doctor --model`."""
    both = {name: activations(shape, replace(work, recompute=flag)) for name, flag in (("kept", False), ("recomputed", True))}
    rows = work.part_tokens // 2
    return {
        "process": PROCESS,
        "base": base_weights(shape, work),
        "adapter": trained_adapter(shape, work),
        "activations": both["kept"],
        "activations_recomputed": both["recomputed"],
        "logprob_tiles": work.lanes * max(tiles(shape, work, rows) for tiles in (logprob_tiles, entropy_tiles)),
        "cache": cache(shape, work),
        "kernels": kernels(work),
    }
