"""RLOO, REINFORCE++ and GRPO on the tiny model: they raise a reward, skip what teaches nothing, and resume to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch

from heedful.config import GRPOSection, LoraSection, RLOOSection
from heedful.engine.lanes import Lanes
from heedful.models.policy import load_language_model
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.training import policy_gradient, policy_update
from heedful.training.grpo import grpo
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.rloo import rloo
from heedful.training.rollout import Question, collect

CPU = torch.device("cpu")
SAME_GRADIENT = 1e-5  # gradients summed over microbatches of other shapes
TEXTS = ["Knock, knock.", "My house is too hot.", "Hi.", "What is the capital of Australia?", "Tell me a story.", "Why?"]
GIVEN: dict[str, Any] = {
    "episodes": 16,
    "samples_per_prompt": 4,
    "max_new_tokens": 10,
    "lora": LoraSection(rank=4, layers=2),
    "missing_eos_penalty": 0.0,
}
VARIANTS: dict[str, tuple[Callable[..., PolicyGradient], type[RLOOSection] | type[GRPOSection]]] = {
    "rloo": (rloo, RLOOSection),
    "reinforce++": (rloo, RLOOSection),
    "reinforce++-baseline": (rloo, RLOOSection),
    "grpo": (grpo, GRPOSection),
    "dr_grpo": (grpo, GRPOSection),
    "dapo": (grpo, GRPOSection),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


def letters(answers: Sequence[Answer]) -> list[float]:
    """Share of an answer's tokens whose id is below 100: something a policy can learn within a few steps."""
    return [sum(token < 100 for token in answer.response_ids) / max(1, len(answer.response_ids)) for answer in answers]


def make(tiny: Path, variant: str, **settings: object) -> PolicyGradient:
    model = load_language_model(str(tiny), dtype=torch.float32, device=CPU)
    questions = [
        Question(f"p{i}", (message := (Message(role="user", content=text),)), model.chat.prompt_ids(message))
        for i, text in enumerate(TEXTS)
    ]
    method, section = VARIANTS[variant]
    chosen = section.model_validate(GIVEN | {"variant": variant} | settings)
    return method(model, letters, questions[:4], questions[4:], settings=chosen, seed=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_reward_on_heldout_prompts_rises(tiny: Path, variant: str) -> None:
    rate = 0.02 if variant == "dr_grpo" else 0.01  # its rewards are not divided by their deviation
    method = make(tiny, variant, learning_rate=rate, kl_coef=0.01)
    before = method.evaluate(0)["heldout_reward"]
    for step in range(12):
        measured = method.step(step)
    assert method.evaluate(12)["heldout_reward"] > before + 0.15
    assert measured["kl_policy_ref"] > 0


@pytest.mark.parametrize("variant", ["rloo", "grpo"])
def test_the_kl_penalty_holds_the_policy_back(tiny: Path, variant: str) -> None:
    distance = {}
    for coef in (0.0, 1.0):
        method = make(tiny, variant, learning_rate=0.003, kl_coef=coef, kl_target=0)
        distance[coef] = sum(method.step(step)["kl_policy_ref"] for step in range(14))
    assert distance[1.0] < 0.7 * distance[0.0], distance


def test_groups_of_equal_reward_are_skipped_and_counted(tiny: Path) -> None:
    method = make(tiny, "grpo", kl_coef=0.0, entropy_coef=0.0)
    method.reward = lambda answers: [0.5] * len(answers)
    before = [parameter.detach().clone() for parameter in method.optimiser.named.values()]
    measured = method.step(0)
    assert measured["skipped_groups"] == 4
    assert measured["epochs"] == 0
    assert all(torch.equal(old, new) for old, new in zip(before, method.optimiser.named.values(), strict=True))
    first_alike = iter([0.5] * 4 + [float(n) for n in range(12)])
    method.reward = lambda answers: [next(first_alike) for _ in answers]
    measured = method.step(1)
    assert measured["skipped_groups"] == 1
    assert measured["epochs"] == 1
    assert any(not torch.equal(old, new) for old, new in zip(before, method.optimiser.named.values(), strict=True))


@pytest.mark.parametrize("variant", ["grpo", "dr_grpo", "dapo"])
def test_parts_add_up_to_one_batch(tiny: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(tiny, variant)
    for step in range(2):
        method.step(step)  # away from the reference, so that the KL term has a gradient
    rollouts = collect(
        method.model, None, letters, method.train, method.decoding, samples_per_prompt=4, seed=2, policy_version=0
    )
    batch = method.batch(rollouts)
    gradients = []
    for lanes in (Lanes(1, 10_000), Lanes(1, 100), Lanes(2, 100)):
        monkeypatch.setattr(policy_update, "lanes_for", lambda *_, lanes=lanes: lanes)
        method.optimiser.adamw.zero_grad(set_to_none=True)
        method.update._accumulate(rollouts, batch, list(range(len(rollouts))), 0.5)
        gradients.append([p.grad.clone() for p in method.optimiser.named.values() if p.grad is not None])
    assert any(float(gradient.abs().max()) > 0 for gradient in gradients[0])
    for whole, *others in zip(*gradients, strict=True):
        for other in others:
            torch.testing.assert_close(whole, other, atol=SAME_GRADIENT, rtol=1e-4)


@pytest.mark.parametrize("variant", ["rloo", "grpo"])
def test_a_resumed_run_ends_with_the_same_numbers(tiny: Path, tmp_path: Path, variant: str) -> None:
    def run(folder: Path, *limits: int) -> list[torch.Tensor]:
        for limit in limits:
            method = make(tiny, variant, max_steps=limit, checkpoint_every=1, eval_every=2)
            policy_gradient.train(method, folder)
        return [parameter.detach().clone() for parameter in method.optimiser.named.values()]

    whole, resumed = run(tmp_path / "a" / "x", 4), run(tmp_path / "b" / "x", 2, 4)
    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


def test_a_group_needs_two() -> None:
    for section in (RLOOSection, GRPOSection):
        with pytest.raises(ValueError, match="samples_per_prompt"):
            section.model_validate({"samples_per_prompt": 1})
