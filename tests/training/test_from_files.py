"""SFT, DPO and kin, KTO on the tiny model: learning, resuming, policies that load in PEFT."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from small_methods import LOSSES, MAKERS, SAME_LOGPROB, KilledError, fresh, make_dpo, make_kto, make_sft, plain_logprobs, ranked

from heedful.engine.responses import response_logprobs, sum_logprobs
from heedful.models.policy import POLICY
from heedful.training import dpo, kto, sft
from heedful.training.adapter import save_policy
from heedful.training.loop import Outcome


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


# Log-probs of responses


def test_response_logprobs_equal_full_logits_of_each_alone(tiny: Path) -> None:
    model = fresh(tiny)
    answers = [answer for group in ranked(model)[:6] for answer in group.answers]
    read = response_logprobs(model, answers, adapter=None)
    for i, answer in enumerate(answers):
        expected = plain_logprobs(model, answer)
        assert read.mask_BT[i].tolist() == [t < len(expected) for t in range(read.mask_BT.shape[1])]
        assert read.logprobs_BT[i][read.mask_BT[i]].tolist() == pytest.approx(expected, abs=SAME_LOGPROB)
    assert sum_logprobs(model, answers, adapter=None) == pytest.approx(
        [math.fsum(plain_logprobs(model, answer)) for answer in answers], abs=SAME_LOGPROB
    )


# Learning


def test_dpo_starts_at_log_2_and_learns_what_holds_for_other_prompts(tiny: Path, tmp_path: Path) -> None:
    method = make_dpo(tiny, tmp_path, soft_labels=False)
    before = method.evaluate(0)
    assert before["heldout_loss"] == pytest.approx(math.log(2), abs=1e-5), "the fresh policy is the reference"
    for step in range(9):
        measured = method.step(step)
    after = method.evaluate(9)
    assert after["heldout_accuracy"] > max(0.75, before["heldout_accuracy"])
    assert after["heldout_margin"] > before["heldout_margin"] + 0.5
    assert after["heldout_loss"] < before["heldout_loss"] - 0.1
    assert measured["margin"] == pytest.approx(measured["reward_chosen"] - measured["reward_rejected"])


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_each_objective_learns(loss: str, tiny: Path, tmp_path: Path) -> None:
    smoothed = {"label_smoothing": 0.1} if loss in ("sigmoid", "robust") else {}
    method = make_dpo(tiny, tmp_path, loss=loss, orpo_weight=1.0, **smoothed)
    before = method.evaluate(0)
    for step in range(9):
        method.step(step)
    after = method.evaluate(9)
    assert after["heldout_loss"] < before["heldout_loss"]
    assert after["heldout_margin"] > before["heldout_margin"]


def test_soft_labels_hold_the_margin_back(tiny: Path, tmp_path: Path) -> None:
    margins = {}
    for soft in (True, False):
        method = make_dpo(tiny, tmp_path, soft_labels=soft)
        for group in method.train:
            group.pairs[:] = [pair._replace(probability=0.6) if pair.decided else pair for pair in group.pairs]
        for step in range(9):
            method.step(step)
        margins[soft] = method.evaluate(9)["heldout_margin"]
    assert margins[True] < 0.8 * margins[False], margins


def test_kto_learns_from_marks_alone(tiny: Path, tmp_path: Path) -> None:
    method = make_kto(tiny, tmp_path)
    before = method.evaluate(0)
    assert before["heldout_loss"] == pytest.approx(0.5, abs=1e-5)
    for step in range(12):
        measured = method.step(step)
    after = method.evaluate(12)
    assert after["heldout_accuracy"] > 0.75
    assert after["heldout_margin"] > 0.3
    assert after["heldout_loss"] < 0.47
    assert measured["kl_mismatched"] >= 0


def test_sft_lowers_the_loss_on_other_prompts(tiny: Path, tmp_path: Path) -> None:
    method = make_sft(tiny, tmp_path)
    before = method.evaluate(0)["heldout_loss"]
    num_tokens = [method.step(step)["num_tokens"] for step in range(9)]
    # Three batches an epoch, each completion once.
    assert sum(num_tokens[:3]) == sum(num_tokens[3:6]) == sum(len(answer.response_ids) for answer in method.train)
    assert method.evaluate(9)["heldout_loss"] < before - 0.5


# Resuming


def trained(name: str, tiny: Path, folder: Path, stop_at: int | None = None) -> tuple[Any, Outcome]:
    """The method's own `train`, killed after some steps or not."""
    method = MAKERS[name](tiny, folder)
    settings = method.settings.model_copy(update={"checkpoint_every": 2, "eval_every": 3, "epochs": 2})

    def progress(done: int, total: int, note: str) -> None:
        if done == stop_at:
            raise KilledError

    model = fresh(tiny)
    shared = {"settings": settings, "seed": 0, "progress": progress}
    if name == "dpo":
        return dpo.train(model, method.train, method.heldout, method.references, folder / name, **shared)
    if name == "kto":
        return kto.train(model, method.train, method.heldout, folder / name, weights=method.weights, **shared)
    return sft.train(model, method.train, method.heldout, folder / name, **shared)


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in found]


@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, tiny: Path, tmp_path: Path) -> None:
    whole, outcome = trained(name, tiny, tmp_path / "whole")
    for stop_at in (3, 5):  # between checkpoints: a step is done twice
        with pytest.raises(KilledError):
            trained(name, tiny, tmp_path / "cut", stop_at)
    resumed, again = trained(name, tiny, tmp_path / "cut")
    assert outcome == again
    assert outcome.steps > 5
    for one, other in zip(whole.adapter.optimiser.named.values(), resumed.adapter.optimiser.named.values(), strict=True):
        assert torch.equal(one, other)
    assert any(bool((parameter != 0).any()) for parameter in whole.adapter.optimiser.named.values())
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
    assert "heldout_loss" in rows(tmp_path / "cut")[-1]


# Saving


@pytest.mark.parametrize("name", MAKERS)
def test_the_policy_loads_in_plain_peft_with_equal_logits(name: str, tiny: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    method = MAKERS[name](tiny, tmp_path)
    method.step(0)
    method.step(1)
    save_policy(method.model, tmp_path / "policy", policy_version=f"{name}-0-2")
    ids = torch.tensor([[5, 9, 120, 33, 7]])
    with torch.no_grad(), method.model.using(POLICY):
        ours = method.model.causal(input_ids=ids).logits
    with torch.no_grad(), method.model.using(None):
        base = method.model.causal(input_ids=ids).logits
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), tmp_path / "policy").eval()
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids).logits, ours)
    assert not torch.equal(base, ours)
    about = json.loads((tmp_path / "policy" / "heedful.json").read_text())
    assert about == {"base": str(tiny), "policy_version": f"{name}-0-2", "temperature": 1.0}
