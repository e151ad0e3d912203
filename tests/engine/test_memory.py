"""Predicted memory against what is really there: counted weights, what autograd keeps, the cache that the decoder lays out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch

from heedful.engine import memory
from heedful.engine.memory import Shape, Work
from heedful.errors import ModelError
from heedful.functional.logprobs import TILE_ROWS
from heedful.models.policy import POLICY, LanguageModel, load_language_model
from heedful.models.sources import model_config
from heedful.models.trunk.cache import Entry, PackedDecoder
from heedful.models.trunk.packed import pack

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMOLLM2 = memory.shape_of(
    {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    },
    "smollm2",
)
WORK = Work(width=2, part_tokens=1024, prompt_tokens=128, response_tokens=48, rows=32, adapted_layers=10)
ROUNDING = 0.02  # a norm's factor a token, and places of the attention's tables, are no term


def loaded(folder: Path, dtype: torch.dtype = torch.bfloat16, *, recompute: bool = False) -> LanguageModel:
    model = load_language_model(str(folder), dtype=dtype, device=torch.device("cpu"), recompute=recompute)
    model.add_adapter(POLICY, rank=4, alpha=8, targets=TARGETS, layers=2, seed=0)
    return model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("memory") / "tiny")


def work_on_tiny(width: int, **changes: Any) -> Work:
    work = Work(width=width, part_tokens=192, prompt_tokens=40, response_tokens=24, rows=5, rank=4, adapted_layers=2)
    return replace(work, **changes)


def test_weights_of_smollm2_are_those_that_its_card_names() -> None:
    assert SMOLLM2.num_weights == 134_515_008
    # 30 layers of rank 16, as PEFT counts them
    assert memory.adapter_weights(SMOLLM2, replace(WORK, adapted_layers=0)) == 4_884_480


def test_weights_are_counted_as_the_model_has_them(tiny: Path) -> None:
    shape = memory.shape_of(model_config(str(tiny)), str(tiny))
    model = loaded(tiny)
    trained = sum(weight.numel() for weight in model.adapter_parameters(POLICY).values())
    assert memory.adapter_weights(shape, work_on_tiny(2)) == trained
    assert shape.num_weights == sum(weight.numel() for weight in model.causal.parameters()) - trained


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_of_other_families(family: str, tied: bool) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = AutoConfig.for_model(family, **sizes, **heads, tie_word_embeddings=tied)
    counted = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    assert memory.shape_of(config.to_dict(), family).num_weights == counted


def kept_by_autograd(model: LanguageModel, num_tokens: int) -> int:
    """Bytes of distinct storages that a forward pass saves, weights left out."""
    trunk = model.trunk(POLICY)
    assert trunk is not None
    # Asked for now: making the trunk lets go of the weights as loaded, and an activation may come to lie at their address.
    known = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    known |= {
        tensor.untyped_storage().data_ptr() for layer in trunk.layers for tensor in (layer.qkv.weight, layer.gate_up.weight)
    }
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    packed = pack([list(range(3, 3 + num_tokens))], [[]], device=torch.device("cpu"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.read(packed, adapter=POLICY)
    assert hidden.requires_grad
    return sum(seen.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_activations_are_what_autograd_keeps(tiny: Path, dtype: torch.dtype) -> None:
    shape = memory.shape_of(model_config(str(tiny)), str(tiny))
    model = loaded(tiny, dtype)
    work = work_on_tiny(dtype.itemsize)
    found = kept_by_autograd(model, 192)
    # Cosines and sines. The last norm's input is kept as well; that of the lowest adapted layer's first norm needs no gradient.
    beside = 192 * 2 * work.width * (shape.queries // 4)
    assert found == pytest.approx(2 * memory.layer_activations(shape, work) + beside, rel=ROUNDING)


def test_the_cache_is_as_large_as_the_decoders(tiny: Path) -> None:
    shape = memory.shape_of(model_config(str(tiny)), str(tiny))
    model = loaded(tiny)
    trunk = model.trunk(None)
    assert trunk is not None
    decoder = PackedDecoder(trunk, None, max_rows=5, max_length=64)
    decoder.enter([Entry(list(range(3, 43)), 5)])
    for _ in range(23):
        decoder.step(torch.full((5,), 7))
    found = sum(tensor.numel() * tensor.element_size() for side in decoder.memory for tensor in side)
    assert memory.cache(shape, work_on_tiny(2)) == found


def test_recomputing_needs_less_and_grows_more_slowly() -> None:
    again = replace(WORK, recompute=True)
    assert memory.activations(SMOLLM2, again) < memory.activations(SMOLLM2, WORK) / 2
    for stage in memory.STAGES:
        assert memory.peak(SMOLLM2, again, stage) < memory.peak(SMOLLM2, WORK, stage)
    each = (memory.activations(SMOLLM2, replace(again, adapted_layers=30)) - memory.activations(SMOLLM2, again)) / 20
    assert each == 2 * 1024 * 576 + memory.freed_between(SMOLLM2, again)  # a layer's input and the room behind it


@pytest.mark.parametrize(
    ("change", "grows"),
    [
        ({"part_tokens": 2048}, memory.activations),
        ({"rank": 64}, memory.trained_adapter),
        ({"adapted_layers": 20}, memory.activations),
        ({"rows": 64}, memory.cache),
        ({"prompt_tokens": 256}, memory.cache),
        ({"num_lengths": 3}, lambda shape, work: -memory.kernels(work)),
    ],
)
def test_a_larger_work_needs_more(change: dict[str, int], grows: Any) -> None:
    assert grows(SMOLLM2, replace(WORK, **change)) > grows(SMOLLM2, WORK)


def test_tiles_count_the_tile_before() -> None:
    """Float32 numbers an entry by hand: log-probs and probabilities of a tile, those of the one before beside its softmax."""
    float32 = replace(WORK, width=4)
    entry = 4 * TILE_ROWS * 49152
    assert memory.logprob_tiles(SMOLLM2, float32, TILE_ROWS) == 2 * entry
    assert memory.logprob_tiles(SMOLLM2, float32, 2 * TILE_ROWS) == 4 * entry
    assert memory.entropy_tiles(SMOLLM2, float32, TILE_ROWS) == 5 * entry
    assert memory.entropy_tiles(SMOLLM2, float32, 2 * TILE_ROWS) == 5 * entry


def test_weights_are_there_once_and_beside_their_file_while_they_load() -> None:
    for width in (2, 4):
        work = replace(WORK, width=width)
        assert memory.base_weights(SMOLLM2, work) == width * SMOLLM2.num_weights
        assert memory.loading(SMOLLM2, work) == memory.PROCESS + (width + 2) * SMOLLM2.num_weights


def test_lanes_hold_a_part_each() -> None:
    two = replace(WORK, lanes=2)
    assert memory.activations(SMOLLM2, two) == 2 * memory.activations(SMOLLM2, WORK)
    assert memory.by_role(SMOLLM2, two)["logprob_tiles"] == 2 * memory.by_role(SMOLLM2, WORK)["logprob_tiles"]


def test_large_blocks_leave_no_room_behind() -> None:
    wide = replace(SMOLLM2, feed_forward=16_384)
    assert memory.freed_between(SMOLLM2, WORK) == 8 * 1024 * 1536
    assert memory.freed_between(wide, WORK) == 0


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ModelError, match=r"m: models of type 'bert'.*known are llama, mistral"):
        memory.shape_of({"model_type": "bert"}, "m")
    with pytest.raises(ModelError, match="models of type None"):
        memory.shape_of({}, "m")


@pytest.mark.parametrize("broken", [{}, {"num_attention_heads": 0, "hidden_size": 8}, {"num_attention_heads": "x"}])
def test_a_config_without_sizes_is_named(broken: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"m: config\.json does not give the model's sizes"):
        memory.shape_of({"model_type": "llama"} | broken, "m")


def test_a_shape_can_be_made_by_hand() -> None:
    assert Shape(10, 4, 1, 4, 4, 8, True, 2, False, 0).num_weights == 10 * 4 + 4 * 12 + 16 + 96 + 8 + 4
