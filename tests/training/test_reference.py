"""The reference's log-probs: computed once, found by content, and the same after an interruption."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_model
import torch
from small_methods import SAME_LOGPROB, KilledError, fresh, plain_logprobs, ranked

from heedful.models.policy import POLICY
from heedful.models.reward import Answer
from heedful.training import reference


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


def test_references_are_computed_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh(tiny)
    answers = [answer for group in ranked(model) for answer in group.answers]
    path = tmp_path / "reference.jsonl"
    first = reference.reference_logprobs(model, answers, path)
    assert first == pytest.approx([math.fsum(plain_logprobs(model, answer)) for answer in answers], abs=SAME_LOGPROB)

    def never(*_: object, **__: object) -> list[float]:
        raise AssertionError("read again")

    monkeypatch.setattr(reference, "sum_logprobs", never)
    assert reference.reference_logprobs(model, answers, path) == first
    model.add_adapter(POLICY, rank=2, alpha=4, targets=("q_proj",), layers=1, seed=0)
    assert reference.reference_logprobs(model, answers[:3], path) == first[:3], "an adapter is not part of the reference"
    other = fresh(tiny)
    with torch.no_grad():
        next(iter(other.causal.parameters())).mul_(1.01)
    with pytest.raises(AssertionError, match="read again"):
        reference.reference_logprobs(other, answers, path)
    changed = Answer(answers[0].messages, "", answers[0].prompt_ids, [*answers[0].response_ids, 5])
    with pytest.raises(AssertionError, match="read again"):
        reference.reference_logprobs(model, [changed], path)


def test_an_interrupted_reference_goes_on_with_the_same_numbers(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh(tiny)
    answers = [answer for group in ranked(model) for answer in group.answers]
    monkeypatch.setattr(reference, "answer_batches", lambda found: [[i] for i in range(len(found))])
    whole = reference.reference_logprobs(model, answers, tmp_path / "whole.jsonl")

    def progress(done: int, total: int, note: str) -> None:
        if done == 4:
            raise KilledError

    path = tmp_path / "cut.jsonl"
    with pytest.raises(KilledError):
        reference.reference_logprobs(model, answers, path, progress)
    assert len(path.read_text().splitlines()) == 4
    with path.open("a") as file:
        file.write('{"key": "half a li')
    assert reference.reference_logprobs(model, answers, path) == whole
