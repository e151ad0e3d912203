"""The three kinds of reward model: they learn a plain preference, and are the same after saving and loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import tiny_model
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from heedful.config import LoraSection, RewardSection
from heedful.engine import scoring
from heedful.errors import ModelError
from heedful.models.head import RewardHead
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.reward import AdapterReward, Answer, EncoderReward, answer_of, load_reward_model
from heedful.records import Message, Preference
from heedful.stages.reward import new_reward_model, train_reward_model

CPU = torch.device("cpu")
# Rewards of a batch and of single answers differ by the order of sums.
SAME = 1e-5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "kind", "rude", "word", "question", "number", *"0123456789.?"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=40,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def model_of(tiny: Path) -> LanguageModel:
    return load_language_model(str(tiny), dtype=torch.float32, device=CPU)


def pairs(count: int = 40) -> list[Preference]:
    """People here prefer "kind" to "rude", whatever else is said."""
    found = []
    for i in range(count):
        prompt = (Message(role="user", content=f"question number {i} ?"),)
        filler = "word " * (i % 4)
        found.append(Preference(prompt_id=f"p{i}", prompt=prompt, chosen=f"{filler}kind .", rejected=f"{filler}rude ."))
    return found


@pytest.mark.parametrize("kind", ["adapter", "frozen", "encoder"])
def test_learns_and_is_the_same_after_loading(tiny: Path, bert: Path, tmp_path: Path, kind: str) -> None:
    settings = RewardSection(
        model=str(bert) if kind == "encoder" else "",
        trunk="frozen" if kind == "frozen" else "adapter",
        pooling="mean" if kind == "encoder" else "last+mean",
        lora=LoraSection(rank=4, layers=2),
        epochs=6,
        learning_rate=1e-3,
        head_learning_rate=1e-2,
    )
    base = model_of(tiny)
    fresh = new_reward_model(base, settings, 0, CPU)
    result = train_reward_model(
        fresh, pairs(), tmp_path / "reward", chat_of=base, settings=settings, seed=0, written={}, num_resamples=200,
        progress=lambda *_: None,
    )  # fmt: skip
    assert result["accuracy"]["estimate"] == 1.0
    assert result["longest_answer"] == 0.5, "both answers are equally long, so length decides nothing"
    answers = [answer_of(base, pair.prompt, text, finished=True) for pair in pairs(6) for text in (pair.chosen, pair.rejected)]
    before = scoring.rewards(fresh, answers)
    again = load_reward_model(tmp_path / "reward" / "model", None, dtype=torch.float32, device=CPU)
    assert scoring.rewards(again, answers) == pytest.approx(before, abs=SAME)
    alone = [scoring.rewards(again, [answer])[0] for answer in answers]
    assert alone == pytest.approx(before, abs=SAME), "padding must not reach the reward"


def test_head_reads_the_end_of_text_even_where_it_is_the_padding(tiny: Path) -> None:
    base = model_of(tiny)
    fresh = new_reward_model(base, RewardSection(pooling="last", lora=LoraSection(rank=4, layers=2)), 0, CPU)
    torch.nn.init.normal_(fresh.parameter_groups()["head"]["linear.weight"], std=1.0)
    prompt = (Message(role="user", content="Hi"),)
    ended = answer_of(base, prompt, "Hello.", finished=True)
    cut = answer_of(base, prompt, "Hello.", finished=False)
    assert base.chat.pad_id == ended.response_ids[-1]
    rewards = scoring.rewards(fresh, [ended, cut])
    assert abs(rewards[0] - rewards[1]) > 1e-3


def test_empty_answer_has_a_reward(tiny: Path) -> None:
    base = model_of(tiny)
    fresh = new_reward_model(base, RewardSection(lora=LoraSection(rank=4, layers=2)), 0, CPU)
    messages = (Message(role="user", content="Hi"),)
    empty = Answer(messages, "", base.chat.prompt_ids(messages), [])
    other = answer_of(base, messages, "Hello there.", finished=True)
    assert len(scoring.rewards(fresh, [empty, other])) == 2


def test_encoder_keeps_the_answer_when_the_prompt_is_too_long(bert: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert)
    encoder = EncoderReward(BertModel.from_pretrained(bert), tokenizer, RewardHead(32, "mean"), str(bert))
    answer = Answer((Message(role="user", content="word " * 100),), "kind .", [], [])
    ids, types = encoder._tokens(answer)
    assert len(ids) == 40
    assert tokenizer.convert_ids_to_tokens(ids)[-4:] == ["[SEP]", "kind", ".", "[SEP]"]
    assert types[-3:] == [1, 1, 1]


def saved(base: LanguageModel, folder: Path, settings: RewardSection) -> Path:
    folder.mkdir()
    new_reward_model(base, settings, 0, CPU).save(folder)
    return folder


@pytest.mark.parametrize("trunk", ["adapter", "frozen"])
@pytest.mark.parametrize("spelling", ["./tiny", "elsewhere/../tiny", "link", "smollm2-135m"])
def test_the_same_base_by_another_name_is_used_as_it_is(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str, trunk: Literal["adapter", "frozen"]
) -> None:
    folder = saved(model_of(tiny), tmp_path / "rm", RewardSection(trunk=trunk, lora=LoraSection(rank=4, layers=2)))
    monkeypatch.chdir(tiny.parent)
    (tiny.parent / "elsewhere").mkdir(exist_ok=True)
    if spelling == "link" and not Path("link").exists():
        Path("link").symlink_to(tiny)
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "models").mkdir(parents=True)
    (tmp_path / "cache" / "models" / "smollm2-135m").symlink_to(tiny)
    base = load_language_model(spelling, dtype=torch.float32, device=CPU)
    loaded = load_reward_model(folder, base, dtype=torch.float32, device=CPU)
    assert isinstance(loaded, AdapterReward)
    assert loaded.model is base


def test_another_base_is_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    other = tiny_model.make(tmp_path / "other", seed=1)
    folder = saved(model_of(tiny), tmp_path / "rm", RewardSection(lora=LoraSection(rank=4, layers=2)))
    for base in ("smollm2-135m", "owner/name", str(tmp_path / "moved-away")):
        about = json.loads((folder / "reward.json").read_text())
        (folder / "reward.json").write_text(json.dumps(about | {"base": base}))
        with pytest.raises(ModelError, match=rf"was trained on '{base}' and cannot read the tokens of '{other}'"):
            load_reward_model(folder, model_of(other), dtype=torch.float32, device=CPU)


def test_an_encoder_goes_with_any_base(tiny: Path, bert: Path, tmp_path: Path) -> None:
    folder = saved(model_of(tiny), tmp_path / "rm", RewardSection(model=str(bert), pooling="mean"))
    other = model_of(tiny_model.make(tmp_path / "other", seed=1))
    assert isinstance(load_reward_model(folder, other, dtype=torch.float32, device=CPU), EncoderReward)


def test_reward_folder_that_is_none(tmp_path: Path) -> None:
    from heedful.errors import SourceError

    with pytest.raises(SourceError, match=r"holds no reward\.json; name a folder that 'heedful reward train' wrote"):
        load_reward_model(tmp_path, None, dtype=torch.float32, device=CPU)
