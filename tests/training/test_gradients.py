"""Gradients of whole batches against a plain computation: each answer alone, full logits of the plain model, autograd."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from small_methods import LOSSES, MAKERS, make_dpo, make_kto, make_sft, plain_logprobs
from torch import Tensor

from heedful.engine.lanes import Lanes
from heedful.models.policy import POLICY
from heedful.models.reward import Answer
from heedful.training import adapter, dpo

# float32 gradients of a three-layer model, summed over batches of other shapes.
SAME_GRADIENT = 1e-5
SAME_LOSS = 1e-5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


def awake(method: Any) -> Any:
    """With an adapter that says something: B is zero in a fresh one, which hides the gradient of A."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.adapter.optimiser.named.values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return method


def gradient(method: Any) -> list[Tensor]:
    found = [parameter.grad.clone() for parameter in method.adapter.optimiser.named.values()]
    method.adapter.optimiser.adamw.zero_grad(set_to_none=True)
    assert any(float(part.abs().max()) > 0 for part in found)
    return found


def assert_same(ours: list[Tensor], plain: list[Tensor]) -> None:
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=SAME_GRADIENT, rtol=1e-3)


def policy_logprobs(method: Any, answer: Answer) -> Tensor:
    """log pi of each response token, differentiable."""
    ids = [*answer.prompt_ids, *answer.response_ids]
    with method.model.using(POLICY):
        logprobs = method.model.causal(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return torch.stack([logprobs[place - 1, ids[place]] for place in range(len(answer.prompt_ids), len(ids))])


def reference_sum(method: Any, answer: Answer) -> float:
    with method.model.using(None):
        return math.fsum(plain_logprobs(method.model, answer))


def test_dpo_equals_a_plain_computation(tiny: Path, tmp_path: Path) -> None:
    method = awake(make_dpo(tiny, tmp_path))
    groups = method.train[:4]
    measured = method.measure(groups, learn=True)
    found = gradient(method)
    total, count = torch.zeros(()), 0
    for group in groups:
        for j, k, p, _ in group.pairs:
            chosen, rejected = group.answers[j], group.answers[k]
            ratios = [policy_logprobs(method, answer).sum() - reference_sum(method, answer) for answer in (chosen, rejected)]
            logit = 0.1 * (ratios[0] - ratios[1])
            total = total - p * torch.sigmoid(logit).log() - (1 - p) * torch.sigmoid(-logit).log()
            count += 1
    assert count > len(groups), "some prompt has several pairs"
    (total / count).backward()
    assert measured.loss == pytest.approx(float(total.detach()) / count, abs=SAME_LOSS)
    assert_same(found, gradient(method))


def test_kto_equals_a_plain_computation(tiny: Path, tmp_path: Path) -> None:
    method = awake(make_kto(tiny, tmp_path, desirable_weight=1.5))
    examples = method.train[:6]
    measured = method.measure(examples, learn=True)
    found = gradient(method)
    drift = [
        float(policy_logprobs(method, e.mismatched).sum().detach()) - reference_sum(method, e.mismatched) for e in examples
    ]
    z0 = max(0.0, sum(drift) / len(drift))
    assert measured.kl == pytest.approx(z0, abs=1e-3)
    total = torch.zeros(())
    for example in examples:
        gain = 0.1 * (policy_logprobs(method, example.answer).sum() - reference_sum(method, example.answer) - z0)
        total = total + (1.5 * (1 - torch.sigmoid(gain)) if example.desirable else 1 - torch.sigmoid(-gain))
    (total / len(examples)).backward()
    assert measured.loss == pytest.approx(float(total.detach()) / len(examples), abs=SAME_LOSS)
    assert_same(found, gradient(method))


def test_sft_equals_a_plain_computation(tiny: Path, tmp_path: Path) -> None:
    method = awake(make_sft(tiny, tmp_path))
    loss = method._pass(method.train[:5], learn=True)
    found = gradient(method)
    plain = -torch.cat([policy_logprobs(method, answer) for answer in method.train[:5]]).mean()
    plain.backward()
    assert loss == pytest.approx(float(plain.detach()), rel=1e-5)
    assert_same(found, gradient(method))


def test_orpo_is_cross_entropy_of_chosen_and_its_odds(tiny: Path, tmp_path: Path) -> None:
    method = awake(make_dpo(tiny, tmp_path, loss="orpo", orpo_weight=0.5, soft_labels=False))
    groups = [group for group in method.train[:6] if len(group.pairs) == 1]
    measured = method.measure(groups, learn=True)
    found = gradient(method)
    chosen = [policy_logprobs(method, group.answers[0]) for group in groups]
    rejected = [policy_logprobs(method, group.answers[1]) for group in groups]

    def odds(logprobs: Tensor) -> Tensor:
        return logprobs.mean().exp() / (1 - logprobs.mean().exp())

    ratio = [(odds(c) / odds(r)).log() for c, r in zip(chosen, rejected, strict=True)]
    nll = -torch.cat(chosen).mean()
    plain = nll - 0.5 * torch.stack([torch.sigmoid(value).log() for value in ratio]).mean()
    plain.backward()
    assert measured.loss == pytest.approx(float(plain.detach()), rel=1e-5)
    assert measured.chosen_nll == pytest.approx(float(nll.detach()), rel=1e-5)
    assert_same(found, gradient(method))


@pytest.mark.parametrize("loss", ["ipo", "simpo"])
def test_means_a_token_not_sums(loss: str, tiny: Path, tmp_path: Path) -> None:
    method = awake(make_dpo(tiny, tmp_path, loss=loss, soft_labels=False, simpo_beta=2.0, simpo_gamma=0.5))
    group = method.train[0]
    measured = method.measure([group])
    with torch.no_grad():
        means = [float(policy_logprobs(method, answer).mean()) for answer in group.answers]
    refs = [reference_sum(method, answer) / len(answer.response_ids) for answer in group.answers]
    if loss == "ipo":
        expected = (means[0] - refs[0] - means[1] + refs[1] - 5.0) ** 2
    else:
        expected = math.log1p(math.exp(-(2.0 * (means[0] - means[1]) - 0.5)))
    assert measured.loss == pytest.approx(expected, rel=1e-4)


EACH = [("sft", {}), ("kto", {}), *(("dpo", {"loss": loss}) for loss in LOSSES)]


def learned(name: str, method: Any, examples: list[Any]) -> tuple[float, list[Tensor]]:
    loss = method._pass(examples, learn=True) if name == "sft" else method.measure(examples, learn=True).loss
    return loss, gradient(method)


@pytest.mark.parametrize(("name", "options"), EACH)
def test_parts_and_order_change_nothing(
    name: str, options: dict[str, Any], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch, the same in parts of one or two answers, and the same in another order."""
    method = awake(MAKERS[name](tiny, tmp_path, **options))
    examples = list(method.train[:8])
    whole, expected = learned(name, method, examples)
    turned, found = learned(name, method, examples[::-1])
    assert turned == pytest.approx(whole, rel=1e-5)
    assert_same(found, expected)
    for lanes in (Lanes(1, 60), Lanes(2, 60)):
        for module in (adapter, dpo):
            monkeypatch.setattr(module, "lanes_for", lambda *_, lanes=lanes: lanes)
        in_parts, found = learned(name, method, examples)
        assert in_parts == pytest.approx(whole, rel=1e-5)
        assert_same(found, expected)
