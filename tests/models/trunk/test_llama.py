"""The packed trunk against the model's own forward pass: hidden states, adapters' gradients, each family that it knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_model
import torch
from small_models import CONFIGS, FLOAT32, OTHERS, PROMPTS, RESPONSES, adapted, build, gradients, own_forward
from torch import Tensor
from torch._dynamo.utils import counters

from heedful.engine.generation import Decoding, sample
from heedful.models import policy
from heedful.models.policy import POLICY, REWARD, LanguageModel, load_language_model
from heedful.models.trunk.llama import unsupported
from heedful.models.trunk.packed import pack
from heedful.training.reference import fingerprint

CPU = torch.device("cpu")
DEVICES = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]
# With eight bits, on weights this large: distance from the float32 model as a share of the states' size and of the gradients'
# norm. The model's own modules, which add the adapter in float32, are at 0.019 and 0.045; the trunk may be half as far again.
BFLOAT16, BFLOAT16_GRADIENT = 0.03, 0.07


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("adapter", [None, POLICY])
@pytest.mark.parametrize("family", CONFIGS)
def test_hidden_states_are_those_of_the_models_own_forward_pass(
    family: str, adapter: str | None, device: torch.device, tmp_path: Path
) -> None:
    model = adapted(build(CONFIGS[family], tmp_path).to(device))
    assert model.trunk(adapter) is not None
    packed = pack(PROMPTS, RESPONSES, device=device)
    torch.testing.assert_close(model.read(packed, adapter=adapter), own_forward(model, adapter), atol=FLOAT32, rtol=FLOAT32)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("family", CONFIGS)
def test_an_adapters_gradients_are_those_of_the_models_own_forward_pass(
    family: str, recompute: bool, device: torch.device, tmp_path: Path
) -> None:
    model = adapted(build(CONFIGS[family], tmp_path, recompute=recompute).to(device))
    trunk = model.trunk(POLICY)
    assert trunk is not None
    computed: list[int] = []
    plain = trunk.after
    trunk.after = lambda *arguments: (computed.append(1), plain(*arguments))[1]
    expected = gradients(model, own_forward(model, POLICY))
    found = gradients(model, model.read(pack(PROMPTS, RESPONSES, device=device), adapter=POLICY))
    assert len(computed) == 3 * (2 if recompute else 1), "each layer once, and once more in the backward"
    assert all(float(gradient.norm()) > 0 for gradient in expected.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=FLOAT32 * float(expected[name].abs().max()) * 10, rtol=1e-4)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",), ("k_proj", "up_proj", "o_proj")])
def test_an_adapter_may_leave_layers_and_projections_alone(targets: tuple[str, ...], tmp_path: Path) -> None:
    model = adapted(build(CONFIGS["llama"], tmp_path), targets=targets, layers=2)
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    found = gradients(model, model.read(packed, adapter=POLICY))
    for name, gradient in gradients(model, own_forward(model, POLICY)).items():
        torch.testing.assert_close(found[name], gradient, atol=1e-3, rtol=1e-4)
    trunk = model.trunk(POLICY)
    assert trunk is not None
    assert trunk.lowest(POLICY) == 1
    both = model.read_beside_reference(packed, adapter=POLICY)
    for side, adapter in zip(both, (POLICY, None), strict=True):
        assert torch.equal(side, model.read(packed, adapter=adapter)), "what the two share is the same to the last bit"


def test_two_adapters_live_side_by_side(tmp_path: Path) -> None:
    model = adapted(adapted(build(CONFIGS["llama"], tmp_path)), REWARD, ("q_proj",))
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    for adapter in (POLICY, REWARD, None):
        torch.testing.assert_close(model.read(packed, adapter=adapter), own_forward(model, adapter), atol=FLOAT32, rtol=FLOAT32)


def test_bfloat16_is_as_near_to_float32_as_the_models_own_forward_pass(tmp_path: Path) -> None:
    exact = adapted(build(CONFIGS["llama"], tmp_path / "a"))
    rounded = adapted(build(CONFIGS["llama"], tmp_path / "b", dtype=torch.bfloat16))
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    truth = exact.read(packed, adapter=POLICY)
    truth_gradients, truth = gradients(exact, truth), truth.detach()

    def away(hidden: Tensor) -> tuple[float, float]:
        """Distance of the states, and of all gradients together, each as a share of what it should be."""
        found = gradients(rounded, hidden)
        assert all(gradient.dtype == torch.float32 for gradient in found.values())
        apart = sum(float((found[name] - gradient).square().sum()) for name, gradient in truth_gradients.items())
        whole = sum(float(gradient.square().sum()) for gradient in truth_gradients.values())
        return float((hidden.detach().float() - truth).abs().mean() / truth.abs().mean()), (apart / whole) ** 0.5

    ours, theirs = away(rounded.read(packed, adapter=POLICY)), away(own_forward(rounded, POLICY))
    assert ours[0] < min(BFLOAT16, 1.5 * theirs[0])
    assert ours[1] < min(BFLOAT16_GRADIENT, 1.5 * theirs[1])


@pytest.mark.parametrize("family", OTHERS)
def test_another_model_is_read_a_row_a_response(family: str, tmp_path: Path) -> None:
    model = build(OTHERS[family], tmp_path)
    assert unsupported(model.causal)
    assert model.trunk(None) is None
    targets = ("c_attn",) if family == "gpt2" else ("q_proj",)
    adapted(model, targets=targets)
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    hidden = model.read(packed, adapter=POLICY)
    torch.testing.assert_close(hidden, own_forward(model, POLICY), atol=FLOAT32, rtol=FLOAT32)
    assert all(float(gradient.norm()) > 0 for gradient in gradients(model, hidden).values())


def test_an_adapter_that_is_more_than_lora_is_read_by_the_models_own_modules(tmp_path: Path) -> None:
    from peft import LoraConfig

    model = build(CONFIGS["llama"], tmp_path)
    model._insert(POLICY, LoraConfig(r=4, target_modules=["q_proj"], use_dora=True, init_lora_weights=False))
    assert model.trunk(POLICY) is None
    assert model.trunk(None) is not None
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    torch.testing.assert_close(model.read(packed, adapter=POLICY), own_forward(model, POLICY), atol=FLOAT32, rtol=FLOAT32)
    assert not torch.equal(model.read(packed, adapter=POLICY), model.read(packed, adapter=None))


def test_a_read_model_is_saved_whole(tmp_path: Path) -> None:
    """Joined weights are views of one matrix; what is written must still be each projection's own."""
    model = load_language_model(str(tiny_model.make(tmp_path / "tiny")), dtype=torch.float32, device=CPU)
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    before = own_forward(model, None)
    model.read(packed, adapter=None)
    model.causal.save_pretrained(tmp_path / "saved")
    model.chat.tokenizer.save_pretrained(tmp_path / "saved")
    again = load_language_model(str(tmp_path / "saved"), dtype=torch.float32, device=CPU)
    assert torch.equal(own_forward(again, None), before)


def test_a_read_model_is_merged_and_known_again(tmp_path: Path) -> None:
    """The adapter is added into weights that are views by then, and the base's hash is that of the same weights."""
    model = adapted(build(CONFIGS["llama"], tmp_path))
    before = fingerprint(model)
    expected = model.read(pack(PROMPTS, RESPONSES, device=CPU), adapter=POLICY).detach()
    assert fingerprint(model) == before
    merged = LanguageModel(model.merged(POLICY), model.chat.tokenizer, "merged")
    torch.testing.assert_close(own_forward(merged, None), expected, atol=FLOAT32, rtol=FLOAT32)


def test_compiled_layers_give_the_same_numbers(tmp_path: Path) -> None:
    plain = adapted(build(CONFIGS["llama"], tmp_path / "a"))
    compiled = adapted(build(CONFIGS["llama"], tmp_path / "b", compiled=True))
    torch._dynamo.reset()
    counters["stats"].clear()
    for cut in (4, 2, 1):  # other numbers of tokens, one function
        packed = pack([prompt * 12 for prompt in PROMPTS[:cut]], RESPONSES[:cut], device=CPU)
        expected, found = plain.read(packed, adapter=POLICY), compiled.read(packed, adapter=POLICY)
        torch.testing.assert_close(found, expected, atol=FLOAT32, rtol=FLOAT32)
        for name, gradient in gradients(compiled, found).items():
            torch.testing.assert_close(
                gradient, gradients(plain, plain.read(packed, adapter=POLICY))[name], atol=1e-3, rtol=1e-4
            )
    # Two functions, each for the first layer, whose input needs no gradient, and for those above it.
    assert counters["stats"]["unique_graphs"] == 4


def test_an_adapter_that_is_not_there_is_no_base(tmp_path: Path) -> None:
    model = build(CONFIGS["llama"], tmp_path)
    with pytest.raises(KeyError, match="typo"):
        model.read(pack(PROMPTS, RESPONSES, device=CPU), adapter="typo")


@pytest.mark.parametrize("learn", [False, True])
def test_a_batch_that_is_large_when_padded_is_read_in_lots(
    learn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(build(OTHERS["mistral, sliding"], tmp_path), targets=("q_proj",))
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    with torch.set_grad_enabled(learn):
        whole = model.read(packed, adapter=POLICY)
        monkeypatch.setattr(policy, "PADDED_TOKENS", 17)
        parts = model.read(packed, adapter=POLICY)
    torch.testing.assert_close(parts, whole, atol=FLOAT32, rtol=FLOAT32)
    if learn:
        expected = gradients(model, whole)
        for name, gradient in gradients(model, parts).items():
            torch.testing.assert_close(gradient, expected[name], atol=1e-3, rtol=1e-4)


def test_gpt2_answers_as_hugging_face_does(tmp_path: Path) -> None:
    model = build(OTHERS["gpt2"], tmp_path)
    greedy = Decoding(temperature=0, top_p=1, max_new_tokens=12)
    found = sample(model, PROMPTS, greedy, adapter=None, samples_per_prompt=1, generator=torch.Generator(), max_rows=3)
    for ids, answers in zip(PROMPTS, found, strict=True):
        theirs = model.causal.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=12, do_sample=False, eos_token_id=-1
        )
        expected = theirs[0, len(ids) :].tolist()
        ends = [place + 1 for place, token in enumerate(expected) if token in model.chat.eos_ids]
        assert answers[0].ids == expected[: min(ends, default=12)]
