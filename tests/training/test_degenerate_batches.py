"""Batches with nothing to learn: empty answers, equal rewards, one class. No NaN, no silent drift, or a refusal in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch

from heedful.config import Config
from heedful.engine.generation import Response
from heedful.models.policy import load_language_model
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.stages.align import new_method
from heedful.training import rollout
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.rollout import Question

METHODS = ["ppo", "rloo", "grpo"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


def make(tiny: Path, name: str, reward: Any, **options: float) -> PolicyGradient:
    model = load_language_model(str(tiny), dtype=torch.float32, device=torch.device("cpu"))
    said = [(Message(role="user", content=text),) for text in ("Knock, knock.", "My house is too hot.", "Hi.", "Why?")]
    questions = [Question(f"p{i}", messages, model.chat.prompt_ids(messages)) for i, messages in enumerate(said)]
    shared = {"episodes": 8, "samples_per_prompt": 4, "max_new_tokens": 8, "lora": {"rank": 4, "layers": 2}}
    config = Config.model_validate({"method": name, name: shared | options})
    return new_method(config, model, reward, questions, questions)


def tensors(method: PolicyGradient) -> list[torch.Tensor]:
    return [tensor.detach().clone() for name, tensor in method.optimiser.named.items() if name.startswith("policy")]


def finite(measured: dict[str, float]) -> bool:
    return all(math.isfinite(value) for value in measured.values())


def constant(answers: Sequence[Answer]) -> list[float]:
    return [0.25] * len(answers)


@pytest.mark.parametrize("name", METHODS)
def test_equal_rewards_teach_nothing_by_themselves(tiny: Path, name: str) -> None:
    """Without KL, entropy and penalties there is no other signal: the policy stands still, by every method."""
    alone = {"critic_warmup_steps": 0} if name == "ppo" else {}
    method = make(tiny, name, constant, kl_coef=0, kl_target=0, entropy_coef=0, missing_eos_penalty=0, **alone)
    before = tensors(method)
    measured = [method.step(step) for step in range(2)]
    assert all(map(finite, measured))
    assert measured[1]["reward_sd"] == 0
    assert measured[1]["score"] == 0
    for old, new in zip(before, tensors(method), strict=True):
        torch.testing.assert_close(old, new, atol=1e-6, rtol=0)


@pytest.mark.parametrize("ids", [["eos"], []], ids=["only the end of text", "no token at all"])
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_empty_answers_is_survived(tiny: Path, name: str, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(tiny, name, lambda answers: [float(len(answer.text)) for answer in answers])
    tokens = [method.model.chat.end_id for _ in ids]

    def sample(model: Any, prompts: Any, *_: Any, samples_per_prompt: int, **__: Any) -> list[list[Response]]:
        return [[Response(tokens, logprobs(method, prompt, tokens)) for _ in range(samples_per_prompt)] for prompt in prompts]

    monkeypatch.setattr(rollout, "sample", sample)
    before = tensors(method)
    measured = [method.step(step) for step in range(2)]
    assert all(map(finite, measured)), measured
    assert measured[0]["length"] == len(tokens)
    if not tokens:
        assert all(torch.equal(old, new) for old, new in zip(before, tensors(method), strict=True))


def logprobs(method: PolicyGradient, prompt: list[int], tokens: list[int]) -> list[float]:
    """As a sampler would report them, so that the check for stale weights has nothing to say."""
    if not tokens:
        return []
    with torch.no_grad(), method.model.using("policy"):
        logits = method.model.causal(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0]
    temperature = method.settings.temperature
    return [float((logits[len(prompt) - 1 + i] / temperature).log_softmax(-1)[token]) for i, token in enumerate(tokens)]
