"""Hugging Face's sequence classifiers as they are: the very logits of transformers, with the classifier's own tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_bert
import tiny_model
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from heedful.config import RewardTermSection
from heedful.engine import scoring
from heedful.errors import ModelError, SourceError
from heedful.models.chat import Chat
from heedful.models.classifier import ClassifierReward, load_classifier
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.reward import Answer, answer_of
from heedful.records import Message
from heedful.rewards.source import Sources

CPU = torch.device("cpu")
# Logits of a batch and of single texts differ by the order of sums.
SAME = 1e-5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


def llama_classifier(tiny: Path, folder: Path, *, pad_id: int | None, labels: int = 1) -> Path:
    """A decoder with a score head that shares the tiny model's tokenizer and chat template."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, num_labels=labels, pad_token_id=pad_id, initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def load(folder: Path, label: str = "", reads: Any = "prompt+answer", chat: Chat | None = None) -> ClassifierReward:
    return load_classifier(str(folder), label=label, reads=reads, dtype=torch.float32, device=CPU, policy_chat=chat)


def texts() -> list[Answer]:
    asked = (Message(role="user", content="question number 1 ?"),)
    return [Answer(asked, text, [], []) for text in ("kind .", "rude rude word .", "word " * 9, "")]


@pytest.mark.parametrize("label", ["rude", "RUDE", "2"])
def test_logit_of_the_named_label_is_transformers_own(tmp_path: Path, label: str) -> None:
    folder = tiny_bert.make(tmp_path / "bert", labels=("kind", "neutral", "rude"))
    reward = load(folder, label)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        theirs = [model(**tokenizer("question number 1 ?", a.text, return_tensors="pt")).logits[0, 2].item() for a in texts()]
    assert scoring.rewards(reward, texts()) == pytest.approx(theirs, abs=SAME)
    alone = [scoring.rewards(reward, [answer])[0] for answer in texts()]
    assert alone == pytest.approx(theirs, abs=SAME), "padding must not reach the reward"
    shares = reward.probabilities(texts()).sum(dim=1).tolist()
    assert shares == pytest.approx([1.0] * 4, abs=SAME)


def test_a_single_logit_needs_no_label_and_answers_may_stand_alone(tmp_path: Path) -> None:
    folder = tiny_bert.make(tmp_path / "bert", labels=("score",))
    reward = load(folder, reads="answer")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        theirs = [model(**tokenizer(a.text, return_tensors="pt")).logits[0, 0].item() for a in texts()]
    assert scoring.rewards(reward, texts()) == pytest.approx(theirs, abs=SAME)
    assert tokenizer.convert_ids_to_tokens(reward.encode(texts()[0])["input_ids"]) == ["[CLS]", "kind", ".", "[SEP]"]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("", "has 2 labels, and which one is the reward must be said"),
        ("polite", "has no label 'polite'"),
        ("2", "has no label '2'"),
    ],
)
def test_a_missing_label_lists_those_that_exist(tmp_path: Path, label: str, said: str) -> None:
    folder = tiny_bert.make(tmp_path / "bert", labels=("kind", "rude"))
    with pytest.raises(ModelError, match=rf"{said}.* as one of: 0 = 'kind', 1 = 'rude'"):
        load(folder, label)


def test_what_is_too_long_loses_the_prompts_beginning_first(tmp_path: Path) -> None:
    folder = tiny_bert.make(tmp_path / "bert", labels=("score",))
    reward = load(folder)
    asked = (Message(role="user", content="number " + "word " * 60 + "question ?"),)
    words = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens
    found = words(reward.encode(Answer(asked, "kind kind .", [], []))["input_ids"])
    assert len(found) <= 40
    assert found[0] == "[CLS]"
    assert "number" not in found
    assert found[-7:] == ["question", "?", "[SEP]", "kind", "kind", ".", "[SEP]"]
    assert reward.num_tokens(Answer(asked, "kind " * 100, [], [])) <= 40


def policy_answer(model: LanguageModel) -> Answer:
    """Tokens that no tokenizer would make of their text: "Hello" letter by letter."""
    tokenizer = model.chat.tokenizer
    messages = (Message(role="user", content="Knock, knock."),)
    spelled = [tokenizer.convert_tokens_to_ids(letter) for letter in "Hello"]
    assert spelled != tokenizer("Hello", add_special_tokens=False)["input_ids"]
    return Answer(messages, "Hello", model.chat.prompt_ids(messages), [*spelled, model.chat.end_id])


def test_a_classifier_with_the_policys_tokens_reads_the_very_ones_the_policy_wrote(tiny: Path, tmp_path: Path) -> None:
    policy = load_language_model(str(tiny), dtype=torch.float32, device=CPU)
    answer = policy_answer(policy)
    reward = load(llama_classifier(tiny, tmp_path / "c", pad_id=2), chat=policy.chat)
    assert reward.encode(answer)["input_ids"] == answer.prompt_ids + answer.response_ids


def test_a_classifier_with_other_tokens_writes_its_own(tiny: Path, tmp_path: Path) -> None:
    policy = load_language_model(str(tiny), dtype=torch.float32, device=CPU)
    folder = llama_classifier(tiny, tmp_path / "c", pad_id=2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|start|>", "<|start|><|start|>")
    tokenizer.save_pretrained(folder)
    reward = load(folder, chat=policy.chat)
    ids = reward.encode(policy_answer(policy))["input_ids"]
    assert ids[:2] == [tokenizer.bos_token_id] * 2, "its own template, its own special tokens"
    assert tokenizer.decode(ids).endswith("assistant\nHello<|end|>")
    cut = Answer((Message(role="user", content="Hi"),), "Hello", [], [], finished=False)
    assert not tokenizer.decode(reward.encode(cut)["input_ids"]).endswith("<|end|>")


@pytest.mark.parametrize("pad", ["own", "end-of-text", "none"])
def test_a_decoders_logit_is_transformers_own_whatever_pads(tiny: Path, tmp_path: Path, pad: str) -> None:
    policy = load_language_model(str(tiny), dtype=torch.float32, device=CPU)
    pad_id = {"own": 2, "end-of-text": policy.chat.end_id, "none": None}[pad]
    folder = llama_classifier(tiny, tmp_path / "c", pad_id=pad_id)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    answers = [
        answer_of(policy, (Message(role="user", content="Hi"),), text, finished=True) for text in ("Yes.", "No, never. Go.", "")
    ]
    with torch.no_grad():
        theirs = [model(input_ids=torch.tensor([a.prompt_ids + a.response_ids])).logits[0, 0].item() for a in answers]
    assert scoring.rewards(load(folder, chat=policy.chat), answers) == pytest.approx(theirs, abs=SAME)


def test_a_language_model_is_no_reward(tiny: Path) -> None:
    sources = Sources(None, dtype=torch.float32, device=CPU)
    with pytest.raises(SourceError, match=r"is no reward\. Name a folder that 'heedful reward train' wrote"):
        sources.reward(RewardTermSection(source=str(tiny)))
    with pytest.raises(SourceError, match="no such folder"):
        sources.reward(RewardTermSection(source="./absent"))


def test_a_classifier_as_a_source_says_which_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_bert.make(tmp_path / "bert", labels=("kind", "rude"))
    reward = Sources(None, dtype=torch.float32, device=CPU).reward(RewardTermSection(source=str(folder), label="kind"))
    assert len(reward(texts())) == 4
    assert "the reward is the logit of label 'kind'" in capsys.readouterr().err
