"""A contrastive score is what transformers computes, text by text; templates without a system role; what does not fit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_model
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from heedful.errors import DataError
from heedful.judging.contrastive import Contrast, Contrastive, drawn, instructed, place_of_instructions
from heedful.models.policy import LanguageModel, load_language_model
from heedful.records import Message

ASKED = (
    Message(role="user", content="What is it?"),
    Message(role="assistant", content="Hm."),
    Message(role="user", content="So?"),
)
TEXTS = [(ASKED, "It is a cat."), (ASKED, "No."), (ASKED[:1], "It is a cat.")]
POLITE, BRIEF = Contrast("Be kind.", "Be rude.", weight=3.0), Contrast("Be brief.", "Talk on and on.")
NATS = 2e-4  # float32 of two implementations


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("contrast") / "tiny", context=192)


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_language_model(str(folder), dtype=torch.float32, device=torch.device("cpu"))


def mean_logprob(folder: Path, messages: tuple[Message, ...], text: str) -> float:
    """By transformers, end of text included."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    turns = [message.model_dump() for message in messages]
    shown = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(shown, add_special_tokens=False)["input_ids"]
    answer = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return float(torch.stack([logprobs[len(prompt) - 1 + n, token] for n, token in enumerate(answer)]).mean())


def test_the_score_is_the_weighted_mean_of_differences_a_token(folder: Path, model: LanguageModel) -> None:
    found = Contrastive(model, [POLITE, BRIEF])(TEXTS)
    for (messages, text), score in zip(TEXTS, found, strict=True):
        gaps = [
            mean_logprob(folder, instructed(messages, one.good), text)
            - mean_logprob(folder, instructed(messages, one.bad), text)
            for one in (POLITE, BRIEF)
        ]
        assert score == pytest.approx((3 * gaps[0] + gaps[1]) / 4, abs=NATS)
    assert len({round(score, 4) for score in found}) == 3


def test_without_a_bad_instruction_the_conversation_as_it_stands_takes_its_place(folder: Path, model: LanguageModel) -> None:
    found = Contrastive(model, [Contrast("Be kind."), Contrast("Be brief.")])(TEXTS[:1])
    ((messages, text),) = TEXTS[:1]
    plain = mean_logprob(folder, messages, text)
    gaps = [mean_logprob(folder, instructed(messages, good), text) - plain for good in ("Be kind.", "Be brief.")]
    assert found == [pytest.approx(sum(gaps) / 2, abs=NATS)]


def test_exchanged_instructions_negate_the_score_and_equal_ones_give_none(model: LanguageModel) -> None:
    there = Contrastive(model, [Contrast("Be kind.", "Be rude.")])(TEXTS)
    back = Contrastive(model, [Contrast("Be rude.", "Be kind.")])(TEXTS)
    assert back == pytest.approx([-score for score in there])
    assert Contrastive(model, [Contrast("Be kind.", "Be kind.")])(TEXTS) == [0, 0, 0]


def test_what_does_not_fit_is_no_number(model: LanguageModel) -> None:
    long = "very " * 200
    assert [math.isnan(score) for score in Contrastive(model, [POLITE])([TEXTS[0], (ASKED, long), TEXTS[1]])] == [
        False,
        True,
        False,
    ]
    assert math.isnan(Contrastive(model, [POLITE])([(ASKED, long)])[0])


def test_nothing_to_contrast_is_told(model: LanguageModel) -> None:
    with pytest.raises(DataError, match="needs a good and a bad instruction"):
        Contrastive(model, [])


def test_where_an_instruction_stands() -> None:
    system = Message(role="system", content="You are Bob.")
    assert [m.role for m in instructed(ASKED, "Be kind.")] == ["system", "user", "assistant", "user"]
    assert instructed((system, *ASKED), "Be kind.") == (Message(role="system", content="Be kind.\n\nYou are Bob."), *ASKED)
    assert instructed(ASKED, "Be kind.", "user")[0] == Message(role="user", content="Be kind.\n\nWhat is it?")
    assert instructed((system, *ASKED), "Be kind.", "user")[:2] == (
        system,
        Message(role="user", content="Be kind.\n\nWhat is it?"),
    )
    with pytest.raises(DataError, match="without a user's turn"):
        instructed((system,), "Be kind.", "user")


REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + tiny_model.TEMPLATE
PASSES_OVER = tiny_model.TEMPLATE.replace(
    "{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}"
)


@pytest.mark.parametrize(
    ("template", "place"), [(tiny_model.TEMPLATE, "system"), (REFUSES, "user"), (PASSES_OVER, "user"), (None, "system")]
)
def test_a_template_without_a_system_role_shows_it_in_the_users_turn(folder: Path, template: str | None, place: str) -> None:
    model = load_language_model(str(folder), dtype=torch.float32, device=torch.device("cpu"))
    model.chat.tokenizer.chat_template = template
    model.chat.has_template = template is not None
    assert place_of_instructions(model.chat) == place
    good, bad = Contrastive(model, [POLITE, Contrast("Be rude.", "Be kind.", weight=3.0)])(TEXTS[:1]), [0.0]
    assert good == pytest.approx(bad, abs=NATS)
    assert Contrastive(model, [POLITE])(TEXTS[:1])[0] != pytest.approx(0, abs=1e-3), "the instruction is read"


def test_some_contrasts_are_drawn_by_weight_and_the_same_for_all_answers(model: LanguageModel) -> None:
    score = Contrastive(model, [POLITE, BRIEF], number=1)
    asked = [(Message(role="user", content=f"What is {n}?"),) for n in range(200)]
    polite = sum(score.contrasts_for(messages) == [POLITE] for messages in asked)
    assert polite == pytest.approx(150, abs=25), "three quarters of the weight"
    alone = {id(one): Contrastive(model, [one])(TEXTS) for one in (POLITE, BRIEF)}
    for n, (messages, _) in enumerate(TEXTS):
        (own,) = score.contrasts_for(messages)
        assert score(TEXTS)[n] == pytest.approx(alone[id(own)][n], abs=NATS)
    assert drawn([1.0, 2.0, 3.0], 0, "key") == drawn([1.0, 2.0, 3.0], 5, "key") == [0, 1, 2]
