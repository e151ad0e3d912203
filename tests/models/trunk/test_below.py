"""States below the adapted layers are computed once within a block, and serve every adapter, batch and epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import CONFIGS, FLOAT32, PROMPTS, RESPONSES, adapted, build, gradients, own_forward

from heedful.models.policy import POLICY, REWARD, LanguageModel
from heedful.models.trunk import below
from heedful.models.trunk.packed import pack

CPU = torch.device("cpu")
LAYERS = 3


@pytest.fixture
def model(tmp_path: Path) -> LanguageModel:
    """Layer 0 has no adapter, layer 1 the reward's, layer 2 both."""
    return adapted(adapted(build(CONFIGS["llama"], tmp_path), layers=1), REWARD, layers=2)


@pytest.fixture
def walked(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of each layer that was computed."""
    trunk = model.trunk(POLICY)
    assert trunk is not None
    own, found = trunk._layer, list[int]()

    def counted(i: int, *args: object, **options: object) -> torch.Tensor:
        found.append(i)
        return own(i, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(trunk, "_layer", counted)
    return found


def test_the_lower_layers_are_walked_once_for_all_adapters(model: LanguageModel, walked: list[int]) -> None:
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    with model.remembering(), torch.no_grad():
        for adapter in (None, POLICY, REWARD, POLICY):
            torch.testing.assert_close(
                model.read(packed, adapter=adapter), own_forward(model, adapter), atol=FLOAT32, rtol=FLOAT32
            )
    assert walked.count(0) == 1
    assert walked.count(1) == walked.count(2) == 4


def test_other_batches_of_the_same_tokens_are_found_and_learn_the_same(model: LanguageModel, walked: list[int]) -> None:
    rows = [[1, 2], [3, 0], [2]]
    alone = [pack([PROMPTS[i] for i in part], [RESPONSES[i] for i in part], device=CPU) for part in rows]
    expected = [gradients(model, model.read(packed, adapter=POLICY)) for packed in alone]
    walked.clear()
    with model.remembering():
        with torch.no_grad():
            model.read(pack(PROMPTS, RESPONSES, device=CPU), adapter=None)
        found = [gradients(model, model.read(packed, adapter=POLICY)) for packed in alone]
    assert walked.count(0) == 1
    for before, after in zip(expected, found, strict=True):
        for name, gradient in before.items():
            torch.testing.assert_close(after[name], gradient, atol=1e-3, rtol=1e-4)


def test_a_response_after_another_prompt_is_another(model: LanguageModel, walked: list[int]) -> None:
    with model.remembering(), torch.no_grad():
        model.read(pack([[5, 6]], [[20, 21]], device=CPU), adapter=POLICY)
        packed = pack([[5, 7]], [[20, 21]], device=CPU)
        found = model.read(packed, adapter=POLICY)
    assert walked.count(0) == 2
    torch.testing.assert_close(found, model.read(packed, adapter=POLICY))


def test_nothing_is_kept_after_the_block_nor_beyond_the_room(
    model: LanguageModel, walked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    for _ in range(2):
        with model.remembering(), torch.no_grad():
            model.read(packed, adapter=POLICY)
    model.read(packed, adapter=POLICY)
    assert walked.count(0) == 3
    monkeypatch.setattr(below, "KEPT_BYTES", 100)
    with model.remembering(), torch.no_grad():
        for _ in range(2):
            model.read(packed, adapter=POLICY)
        assert model._below is not None
        assert model._below.num_bytes <= 100
    assert walked.count(0) == 5


def test_an_adapter_that_reaches_lower_makes_it_begin_anew(model: LanguageModel, walked: list[int]) -> None:
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    with model.remembering(), torch.no_grad():
        model.read(packed, adapter=POLICY)
        adapted(model, "whole", layers=LAYERS)
        torch.testing.assert_close(model.read(packed, adapter="whole"), own_forward(model, "whole"), atol=FLOAT32, rtol=FLOAT32)


def test_readers_with_gradients_keep_nothing(model: LanguageModel) -> None:
    """Several of them read at a time, and which came first would decide what is found."""
    with model.remembering():
        model.read(pack(PROMPTS, RESPONSES, device=CPU), adapter=POLICY)
        assert model._below is not None
        assert not model._below.kept
