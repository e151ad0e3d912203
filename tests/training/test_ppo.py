"""PPO on the tiny model: it raises a reward that can be raised, stops when told to, and parts add up to the whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny_model
import torch

from heedful.config import LoraSection, PPOSection
from heedful.engine.lanes import Lanes
from heedful.models.policy import POLICY, load_language_model
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.training import policy_gradient, policy_update
from heedful.training.loop import Outcome
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.ppo import ppo
from heedful.training.rollout import Question, collect

CPU = torch.device("cpu")
# Gradients summed over microbatches of other shapes.
SAME_GRADIENT = 1e-5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


def make(tiny: Path, **settings: object) -> PolicyGradient:
    model = load_language_model(str(tiny), dtype=torch.float32, device=CPU)
    texts = ["Knock, knock.", "My house is too hot.", "Hi.", "What is the capital of Australia?", "Tell me a story.", "Why?"]
    questions = [
        Question(f"p{i}", (message := (Message(role="user", content=text),)), model.chat.prompt_ids(message))
        for i, text in enumerate(texts)
    ]
    given = {"episodes": 16, "max_new_tokens": 10, "lora": LoraSection(rank=4, layers=2), "missing_eos_penalty": 0.0} | settings
    chosen = PPOSection.model_validate(given)
    return ppo(model, letters, questions[:4], questions[4:], settings=chosen, seed=0)


def letters(answers: Sequence[Answer]) -> list[float]:
    """Share of an answer's tokens whose id is below 100: something a policy can learn within a few steps."""
    return [sum(token < 100 for token in answer.response_ids) / max(1, len(answer.response_ids)) for answer in answers]


@pytest.mark.parametrize("cap", [0.0, 2.0], ids=["states kept", "read again"])
def test_the_first_rollouts_are_the_references_own(tiny: Path, cap: float) -> None:
    measured = make(tiny, sampler_ratio_cap=cap).step(0)
    assert abs(measured["kl_policy_ref"]) < 1e-4
    assert measured["sampler_gap"] < 1e-5


def test_reward_on_heldout_prompts_rises(tiny: Path) -> None:
    method = make(tiny, learning_rate=0.01, kl_coef=0.01, critic_warmup_steps=0)
    before = method.evaluate(0)["heldout_reward"]
    for step in range(12):
        measured = method.step(step)
    assert method.evaluate(12)["heldout_reward"] > before + 0.2
    assert measured["kl_policy_ref"] > 0


def test_kl_penalty_holds_the_policy_back(tiny: Path) -> None:
    """The same training under a penalty stays nearer to the reference. With the state's KL alone as the reward it did not."""
    distance = {}
    for coef in (0.0, 1.0):
        method = make(tiny, learning_rate=0.003, kl_coef=coef, kl_target=0, critic_warmup_steps=0)
        distance[coef] = sum(method.step(step)["kl_policy_ref"] for step in range(14))
    assert distance[1.0] < 0.7 * distance[0.0], distance


def test_critic_warmup_leaves_the_policy_alone(tiny: Path) -> None:
    method = make(tiny, critic_warmup_steps=1)
    method.step(0)
    assert all(
        bool((parameter == 0).all()) for name, parameter in method.model.causal.named_parameters() if f"lora_B.{POLICY}" in name
    )
    assert float(method.optimiser.named["value: linear.weight"].detach().abs().sum()) > 0
    method.step(1)
    assert any(
        bool((parameter != 0).any()) for name, parameter in method.model.causal.named_parameters() if f"lora_B.{POLICY}" in name
    )


def test_k1_and_exact_kl_agree_on_average(tiny: Path) -> None:
    method = make(tiny, learning_rate=0.01, critic_warmup_steps=0, episodes=16)
    for step in range(4):
        method.step(step)
    rollouts = collect(
        method.model,
        method.critic.head,
        letters,
        method.train,
        method.decoding,
        samples_per_prompt=200,
        seed=1,
        policy_version=4,
    )
    exact = torch.stack([rollout.scored.kl_T.sum() for rollout in rollouts])
    k1 = torch.stack([(rollout.scored.logprobs_T - rollout.scored.ref_logprobs_T).sum() for rollout in rollouts])
    standard_error = float((k1 - exact).std()) / len(rollouts) ** 0.5
    assert abs(float((k1 - exact).mean())) < 4 * standard_error
    assert float(exact.min()) > -1e-5
    assert float(exact.var()) < float(k1.var()), "the exact KL is there because it varies less"


def test_parts_add_up_to_one_batch(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(tiny)
    rollouts = collect(
        method.model, method.critic.head, letters, method.train, method.decoding, samples_per_prompt=4, seed=2, policy_version=0
    )
    batch = method.batch(rollouts)
    gradients = []
    for lanes in (Lanes(1, 10_000), Lanes(1, 100), Lanes(2, 100)):
        monkeypatch.setattr(policy_update, "lanes_for", lambda *_, lanes=lanes: lanes)
        method.optimiser.adamw.zero_grad(set_to_none=True)
        sums = method.update._accumulate(rollouts, batch, list(range(len(rollouts))), 0.1)
        parameters = list(method.optimiser.named.values())
        gradients.append([p.grad.clone() for p in parameters if p.grad is not None])
        assert sums["num_tokens"] == float(batch["mask"].sum())
    assert any(float(gradient.abs().max()) > 0 for gradient in gradients[0])
    for whole, *others in zip(*gradients, strict=True):
        for other in others:
            torch.testing.assert_close(whole, other, atol=SAME_GRADIENT, rtol=1e-4)


def test_stops_at_the_reward_threshold(tiny: Path, tmp_path: Path) -> None:
    method = make(tiny)
    settings = PPOSection.model_validate(
        method.settings.model_dump() | {"reward_threshold": -1.0, "max_steps": 50, "eval_every": 2, "checkpoint_every": 10}
    )

    def train() -> Outcome:
        given = (method.model, letters, method.train, method.heldout)
        return policy_gradient.train(ppo(*given, settings=settings, seed=0), tmp_path / "ppo")

    assert train() == Outcome(2, "reward threshold", 2), "any reward is above -1, and it is first looked at after two steps"
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    assert rows[1]["heldout_reward"] > -1
    assert train().steps == 2, "a run that has reached its threshold does not go on when it is started again"


def test_default_step_limit_is_the_textbooks() -> None:
    assert PPOSection().max_steps == 20_000


def test_constant_rewards_teach_nothing_and_break_nothing(tiny: Path) -> None:
    method = make(tiny, critic_warmup_steps=0, kl_coef=0.0, kl_target=0, entropy_coef=0.0)
    method.reward = lambda answers: [0.5] * len(answers)
    measured = method.step(0)
    assert measured["score"] == 0.0
    assert measured["policy_loss"] == pytest.approx(0, abs=1e-6)
