"""A local judge's log-odds are those that transformers computes, question by question."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_model
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from heedful.errors import DataError
from heedful.judging.judge import question
from heedful.judging.local import LocalLetters, local_letters
from heedful.records import Message

QUESTIONS = [
    question((Message(role="user", content=f"What is {n}?"),), "One." * n, "I do not know.", "helpful") for n in (1, 3, 2)
]
NATS = 2e-4  # float32 of two implementations, summed over a few hundred positions


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("judge") / "tiny", context=1024)


def test_the_log_odds_of_the_letters(tiny: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "AB"]
    assert [len(ids) for ids in letters] == [1, 1]
    expected = []
    for messages in QUESTIONS:
        turns = [message.model_dump() for message in messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        with torch.no_grad():
            logits = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, -1]
        expected.append(float(logits[letters[0][0]] - logits[letters[1][0]]))
    assert local_letters(str(tiny))(QUESTIONS) == pytest.approx(expected, abs=NATS)
    assert len(set(expected)) == 3


def test_a_question_that_is_too_long_is_told(tmp_path: Path) -> None:
    short = local_letters(str(tiny_model.make(tmp_path / "short", context=64)))
    sharp = LocalLetters(short.model, strict=False)([*QUESTIONS, (Message(role="user", content="A?"),)])
    assert [math.isnan(lean) for lean in sharp] == [True] * len(QUESTIONS) + [False]
    with pytest.raises(DataError, match=r"a question to the judge has \d+ tokens \('.*What is 1.*reads 64\. Leave that"):
        short(QUESTIONS)
