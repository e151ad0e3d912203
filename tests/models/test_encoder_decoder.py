"""Encoder-decoder models read the same way as their own forward pass, and learn by every method through the one seam."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_t5
import torch
from prompt_set import PromptSet
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from heedful.config import DPOSection, EnvironmentSection, LoraSection, PPOSection, SFTSection
from heedful.engine import scoring
from heedful.engine.device import compile_where_told
from heedful.engine.episodes import World, play, tasks_of
from heedful.engine.generation import Decoding, sample
from heedful.engine.lanes import lanes_for
from heedful.engine.memory import shape_of
from heedful.engine.responses import response_logprobs
from heedful.errors import ConfigError, ModelError
from heedful.models import encoder_decoder
from heedful.models.head import RewardHead
from heedful.models.policy import POLICY, LanguageModel, export_merged, load_language_model
from heedful.models.reward import AdapterReward, Answer, answer_of
from heedful.models.sources import is_encoder
from heedful.models.trunk.packed import pack
from heedful.records import Message, Prompt
from heedful.training import sft
from heedful.training.dpo import DPO
from heedful.training.ppo import ppo
from heedful.training.reward import Group, Pair
from heedful.training.rollout import Question

CPU = torch.device("cpu")
SAME = 2e-5  # two ways to a sum in another order, float32
LORA = LoraSection(rank=8, alpha=16, targets=("q", "v"), layers=0)
PROMPTS = [[3, 4, 5, 1], [6, 1], [3, 4, 5, 1], [7, 8, 1]]
RESPONSES = [[3, 4, 1], [9, 1], [5, 6, 7, 8, 9], []]


def random_model(kind: str = "tied") -> LanguageModel:
    """Weights large enough to tell a wrong state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "mt5":
            fields = {name: value for name, value in tiny_t5.config(tied=False).to_dict().items() if name != "model_type"}
            causal = MT5ForConditionalGeneration(MT5Config(**fields))
        else:
            causal = T5ForConditionalGeneration(tiny_t5.config(tied=kind == "tied"))
        for name, weight in causal.named_parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=1.0 if "shared" in name else 0.2)
    return LanguageModel(causal, tiny_t5.tokenizer(), "tiny-t5")


def adapted(model: LanguageModel, layers: int = 0) -> LanguageModel:
    model.add_adapter(POLICY, rank=4, alpha=8, targets=("q", "v"), layers=layers, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.adapter_parameters(POLICY).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            parameter.requires_grad_(True)
    return model


def own_logprobs(model: LanguageModel, adapter: str | None) -> list[Tensor]:
    """By the model's own forward pass, one response at a time, from the logits that its own head gives."""
    found = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        if not response:
            found.append(torch.zeros(0))
            continue
        with model.using(adapter):
            logits = model.causal(input_ids=torch.tensor([prompt]), labels=torch.tensor([response])).logits[0]
        found.append(logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0])
    return found


def answers() -> list[Answer]:
    return [Answer((), "", prompt, response) for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]


@pytest.mark.parametrize("kind", ["tied", "untied", "mt5"])
@pytest.mark.parametrize("adapter", [None, POLICY])
def test_logprobs_are_those_of_the_models_own_forward_pass(kind: str, adapter: str | None) -> None:
    model = adapted(random_model(kind))
    read = response_logprobs(model, answers(), adapter=adapter)
    for row, mask, expected in zip(*read, own_logprobs(model, adapter), strict=True):
        torch.testing.assert_close(row[mask], expected, atol=SAME, rtol=SAME)


def test_a_checkpoint_with_a_head_of_its_own_is_read_with_it(tmp_path: Path) -> None:
    """As FLAN-T5's. transformers 5.23 ties what it builds from a config, so only a file can say otherwise."""
    plain = random_model("untied")
    plain.causal.save_pretrained(tmp_path)
    tiny_t5.tokenizer().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = torch.randn(plain.causal.lm_head.weight.shape, generator=torch.Generator().manual_seed(3)) * 0.2
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = load_language_model(str(tmp_path), dtype=torch.float32, device=CPU)
    torch.testing.assert_close(model.causal.lm_head.weight.detach(), weights["lm_head.weight"])
    assert not torch.equal(model.causal.lm_head.weight, model.causal.shared.weight)
    read = response_logprobs(model, answers(), adapter=None)
    for row, mask, expected in zip(*read, own_logprobs(model, None), strict=True):
        torch.testing.assert_close(row[mask], expected, atol=SAME, rtol=SAME)


def test_a_decoder_may_be_deeper_than_its_encoder() -> None:
    """Against the model's own forward pass without a cache: `generate` of transformers 5.23 fails on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = T5Config(**{**tiny_t5.config().to_dict(), "num_layers": 1, "num_decoder_layers": 3})
        model = LanguageModel(T5ForConditionalGeneration(config), tiny_t5.tokenizer(), "deep")
    options = {"adapter": None, "samples_per_prompt": 1, "generator": torch.Generator()}
    ((one,),) = sample(model, [PROMPTS[0]], Decoding(0.0, 1.0, 6), **options)  # type: ignore[arg-type]
    with torch.no_grad():
        logits = model.causal(input_ids=torch.tensor([PROMPTS[0]]), labels=torch.tensor([one.ids])).logits[0]
    assert one.ids == logits.argmax(-1).tolist()


def test_gradients_are_those_of_the_models_own_forward_pass_and_of_many_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(random_model())
    tensors = list(model.adapter_parameters(POLICY).values())
    expected = torch.autograd.grad(sum(row.sum() for row in own_logprobs(model, POLICY)), tensors)
    for room in (2048, 8):
        monkeypatch.setattr(encoder_decoder, "PADDED_TOKENS", room)
        read = response_logprobs(model, answers(), adapter=POLICY)
        found = torch.autograd.grad(read.logprobs_BT[read.mask_BT].sum(), tensors)
        assert max(float(row.abs().max()) for row in expected) > 0.1
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_sampling_and_scoring_agree_and_greedy_answers_are_generates_own() -> None:
    model = adapted(random_model())
    drawn = sample(
        model,
        PROMPTS[:2],
        Decoding(0.8, 1.0, 9),
        adapter=POLICY,
        samples_per_prompt=3,
        generator=torch.Generator().manual_seed(0),
    )
    rows = [(prompt, one) for prompt, some in zip(PROMPTS[:2], drawn, strict=True) for one in some]
    assert len({len(one.ids) for _, one in rows}) > 1, "rows leave at different times"
    scored = scoring.score_responses(model, [p for p, _ in rows], [one.ids for _, one in rows], temperature=0.8)
    for (_, one), score in zip(rows, scored, strict=True):
        torch.testing.assert_close(torch.tensor(one.logprobs), score.logprobs_T, atol=SAME, rtol=SAME)
        assert float(score.kl_T.max()) > 1e-3, "the reference is another one than the policy"
    for prompt in PROMPTS[:2]:
        options = {"adapter": None, "samples_per_prompt": 1, "generator": torch.Generator()}
        ((greedy,),) = sample(model, [prompt], Decoding(0.0, 1.0, 9), **options)
        with model.using(None):
            expected = model.causal.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=9)[0, 1:]
        assert greedy.ids == expected.tolist()


def test_the_value_head_and_a_reward_head_read_the_decoders_states() -> None:
    model = random_model()
    packed = pack(PROMPTS, RESPONSES, device=CPU)
    hidden = model.read(packed, adapter=None)
    output = model.causal(
        input_ids=torch.tensor([PROMPTS[2]]), decoder_input_ids=torch.tensor([[0, *RESPONSES[2]]]), output_hidden_states=True
    )
    states = output.decoder_hidden_states[-1][0] * model.causal.config.d_model**-0.5
    first = packed.first[2]
    torch.testing.assert_close(hidden[first : first + 5], states[1:], atol=SAME, rtol=SAME)
    start, length = packed.prompts[2]
    torch.testing.assert_close(hidden[start + length - 1], states[0], atol=SAME, rtol=SAME)
    head = RewardHead(model.hidden_size, "last")
    torch.nn.init.normal_(head.linear.weight)
    for reads in ("prompt+answer", "answer"):
        together = AdapterReward(model, head, None, reads).rewards(answers())
        alone = torch.cat([AdapterReward(model, head, None, reads).rewards([answer]) for answer in answers()])
        torch.testing.assert_close(together, alone, atol=SAME, rtol=SAME)
        assert len({round(value, 4) for value in together.tolist()}) == 4


def test_adapters_sit_in_the_uppermost_blocks_of_both_halves_and_come_back_from_disk(tmp_path: Path) -> None:
    tiny_t5.make(tmp_path / "base", steps=1)
    model = load_language_model(str(tmp_path / "base"), dtype=torch.float32, device=CPU)
    adapted(model, layers=1)
    names = list(model.adapter_parameters(POLICY))
    assert {name.split(".layer.")[0] for name in names} == {"encoder.block.1", "decoder.block.1"}
    assert {part for name in names for part in ("SelfAttention", "EncDecAttention") if part in name} == {
        "SelfAttention",
        "EncDecAttention",
    }
    (tmp_path / "policy").mkdir()
    model.save_adapter(POLICY, tmp_path / "policy")
    assert json.loads((tmp_path / "policy/adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
    again = load_language_model(str(tmp_path / "policy"), dtype=torch.float32, device=CPU)
    export_merged(str(tmp_path / "policy"), tmp_path / "merged", CPU)
    merged = load_language_model(str(tmp_path / "merged"), dtype=torch.float32, device=CPU)
    expected = response_logprobs(model, answers(), adapter=POLICY).logprobs_BT
    assert not torch.allclose(expected, response_logprobs(model, answers(), adapter=None).logprobs_BT, atol=1e-3)
    for other, adapter in ((again, POLICY), (merged, None)):
        torch.testing.assert_close(
            response_logprobs(other, answers(), adapter=adapter).logprobs_BT, expected, atol=1e-4, rtol=1e-4
        )


def test_what_is_not_supported_is_refused() -> None:
    model = random_model()
    assert model.trunk(None) is None
    assert lanes_for(model, None).count == 1
    with pytest.raises(ModelError, match=r'targets = \["q", "v"\]'):
        model.add_adapter(POLICY, rank=4, alpha=8, targets=LoraSection().targets, layers=0, seed=0)
    with pytest.raises(ConfigError, match=r"model.compile = 'on'"):
        compile_where_told(model, "on")
    assert compile_where_told(model, "auto").compiled is False
    with pytest.raises(ModelError, match="memory is not predicted"):
        shape_of(tiny_t5.config().to_dict(), "tiny")
    small = BartConfig(
        vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
    )  # fmt: skip
    with pytest.raises(ModelError, match="type 'bart' are not known"):
        LanguageModel(BartForConditionalGeneration(small), tiny_t5.tokenizer(), "bart")
    prompt = Prompt(id="a", messages=(Message(role="user", content="red"),))
    world = World(PromptSet, {"a": prompt}, EnvironmentSection().max_turns, 32)
    with pytest.raises(ModelError, match=r"environment\.kind = 'retrieval'"):
        play(model, world, tasks_of(["a"], samples_per_prompt=1, seed=0, only=[0]), Decoding(1, 1, 4), adapter=None)


def test_depths_that_differ_are_refused_only_where_layers_are_counted() -> None:
    model = random_model()
    model.causal.config.num_decoder_layers = 3
    with pytest.raises(ModelError, match=r"lora\.layers = 0"):
        adapted(model, layers=1)
    adapted(model)


# Learning


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_t5.make(tmp_path_factory.mktemp("t5") / "base")


@pytest.fixture
def model(folder: Path) -> LanguageModel:
    assert not is_encoder(str(folder))
    return load_language_model(str(folder), dtype=torch.float32, device=CPU)


def messages(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def questions(model: LanguageModel, texts: list[str]) -> list[Question]:
    return [Question(str(i), messages(text), model.chat.prompt_ids(messages(text))) for i, text in enumerate(texts)]


def test_it_repeats_what_it_reads_before_anything_is_learned(model: LanguageModel) -> None:
    texts = tiny_t5.sentences(40, 99)
    assert model.chat.prompt_ids(messages("red one")) == [*model.chat.tokenizer("red one")["input_ids"]]
    drawn = sample(
        model,
        [question.ids for question in questions(model, texts)],
        Decoding(0.0, 1.0, 6),
        adapter=None,
        samples_per_prompt=1,
        generator=torch.Generator(),
    )
    assert sum(model.chat.text(one.ids) == text for (one,), text in zip(drawn, texts, strict=True)) > 25


def test_ppo_raises_its_reward(model: LanguageModel) -> None:
    """Kindness is paid for: the word "nice" and not "damn", whatever is to be repeated."""

    def kind(some: object) -> list[float]:
        return [float("nice" in answer.text) - float("damn" in answer.text) for answer in some]  # type: ignore[attr-defined]

    settings = PPOSection(
        lora=LORA, episodes=48, samples_per_prompt=1, max_new_tokens=4, learning_rate=3e-2, kl_coef=0.01, kl_target=0, epochs=3,
        num_minibatches=2, eval_every=100,
    )  # fmt: skip
    asked = questions(model, tiny_t5.sentences(60, 5))
    method = ppo(model, kind, asked[:48], asked[48:], settings=settings, seed=0)
    rows = [method.step(step) for step in range(12)]
    before, after = (sum(row["reward"] for row in some) / 2 for some in (rows[:2], rows[-2:]))
    assert after > before + 0.2
    assert rows[0]["kl_policy_ref"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["kl_policy_ref"] > 0.05
    assert rows[0]["sampler_gap"] < 1e-4


def test_dpo_and_sft_learn(model: LanguageModel, folder: Path, tmp_path: Path) -> None:
    texts = tiny_t5.sentences(24, 7)
    pairs = [
        Group(str(i), [answer_of(model, messages(text), "nice"), answer_of(model, messages(text), text)], [Pair(0, 1, 1.0)])
        for i, text in enumerate(texts)
        if text != "nice"
    ]
    references = {
        group.prompt_id: [float(row.sum()) for row in scoring.response_logprobs(
            model, [a.prompt_ids for a in group.answers], [a.response_ids for a in group.answers]
        )]
        for group in pairs
    }  # fmt: skip
    settings = DPOSection(lora=LORA, batch_prompts=12, learning_rate=1e-2)
    method = DPO(model, pairs, [], references, settings=settings, num_steps=8, seed=0)
    rows = [method.step(step) for step in range(8)]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "policy and reference are one at the start"
    assert rows[-1]["loss"] < 0.5
    fresh = load_language_model(str(folder), dtype=torch.float32, device=CPU)
    taught = [answer_of(fresh, messages(text), "nice dog") for text in texts]
    imitating = sft.SFT(
        fresh,
        taught,
        taught[:4],
        settings=SFTSection(lora=LORA, batch_completions=12, learning_rate=2e-2),
        num_steps=10,
        seed=0,
    )
    before = imitating.evaluate(0)["heldout_loss"]
    for step in range(10):
        imitating.step(step)
    assert imitating.evaluate(10)["heldout_loss"] < before / 2


def test_a_server_that_samples_is_refused(model: LanguageModel) -> None:
    method = ppo(model, lambda some: [0.0] * len(some), questions(model, ["red"]), [], settings=PPOSection(lora=LORA), seed=0)
    with pytest.raises(ConfigError, match=r"scale\.vllm_url"):
        method.ask_server(object())  # type: ignore[arg-type]
