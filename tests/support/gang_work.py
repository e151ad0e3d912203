"""What a gang does: both members call one of these with the same arguments."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import small_methods
import small_models
import torch
from torch.distributed.tensor import DTensor

from heedful.config import Config, RewardSection
from heedful.engine import scoring
from heedful.errors import RewardError
from heedful.models.policy import load_language_model
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.stages.align import new_method
from heedful.stages.reward import new_reward_model
from heedful.team import BrokenPassError, once, shared, team, together
from heedful.training import rollout
from heedful.training.optimiser import Optimiser
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.reference import fingerprint
from heedful.training.reward import PairwiseTraining
from heedful.training.rollout import Question

CPU = torch.device("cpu")
TEXTS = [
    "Knock, knock.",
    "My house is too hot.",
    "Hi.",
    "Why? Tell me all about it, and do not leave anything out.",
    "Go on.",
    "?",
]


def letters(answers: Sequence[Answer]) -> list[float]:
    return [float(len(answer.text) % 5) + answer.text.count("e") for answer in answers]


def online(tiny: str, name: str, max_staleness: int = 0) -> PolicyGradient:
    model = load_language_model(tiny, dtype=torch.float32, device=CPU)
    said = [(Message(role="user", content=text),) for text in TEXTS]
    questions = [Question(f"p{i}", messages, model.chat.prompt_ids(messages)) for i, messages in enumerate(said)]
    shape = {"episodes": 12, "samples_per_prompt": 2, "max_new_tokens": 10, "learning_rate": 0.01, "warmup_steps": 0}
    own: dict[str, Any] = {"critic_warmup_steps": 0} if name == "ppo" else {}
    lora = {"lora": {"rank": 4, "layers": 2}}
    config = Config.model_validate({"method": name, name: shape | own | lora, "scale": {"max_staleness": max_staleness}})
    return new_method(config, model, letters, questions, questions[:3])


def make(kind: str, tiny: str, folder: str) -> Any:
    if kind in ("ppo", "rloo", "grpo"):
        return online(tiny, kind)
    if kind == "reward":
        model = small_methods.fresh(Path(tiny))
        settings = RewardSection.model_validate({"lora": {"rank": 4, "layers": 2}, "batch_prompts": 8})
        fresh = new_reward_model(model, settings, 0, CPU)
        groups = small_methods.ranked(model)
        return PairwiseTraining(fresh, groups[:24], groups[24:], settings=settings, num_steps=6, seed=0)
    own = Path(folder) / f"{kind}-{team().size}-{team().rank}"
    own.mkdir(exist_ok=True)
    return small_methods.MAKERS[kind](Path(tiny), own)


def steps(kind: str, tiny: str, folder: str, count: int) -> tuple[list[list[torch.Tensor]], list[dict[str, float]]]:
    """Gradients at each update of `count` steps, before clipping, and what the steps and the evaluation after them measured."""
    method = make(kind, tiny, folder)
    seen: list[list[torch.Tensor]] = []
    optimiser: Optimiser = method.optimiser if hasattr(method, "optimiser") else method.adapter.optimiser
    update = optimiser.update

    def watched() -> float:
        seen.append([torch.zeros(()) if tensor.grad is None else tensor.grad.clone() for tensor in optimiser.tensors])
        return update()

    optimiser.update = watched  # type: ignore[method-assign]
    measured = [method.step(step) for step in range(count)]
    return seen, [*measured, method.evaluate(count)]


def rollouts(tiny: str) -> list[tuple[list[int], list[float], float]]:
    method = online(tiny, "ppo")
    found = rollout.collect(
        *(method.model, method.critic.head if method.critic else None, letters, method.train, method.decoding),
        samples_per_prompt=2,
        seed=5,
        policy_version=0,
    )
    return [(one.answer.response_ids, list(one.sampler_logprobs), one.reward) for one in found]


def rewards(tiny: str) -> list[float]:
    model = small_methods.fresh(Path(tiny))
    fresh = new_reward_model(model, RewardSection(), 0, CPU)
    with torch.no_grad():
        for tensor in fresh.parameter_groups()["head"].values():
            tensor.copy_(torch.linspace(-1, 1, tensor.numel()).view(tensor.shape))
    return scoring.rewards(fresh, [answer for group in small_methods.ranked(model) for answer in group.answers])


def stale(tiny: str, handshake: bool) -> None:
    """Member 1 keeps the weights of step 0."""
    method = online(tiny, "ppo")
    digest = rollout.weights_digest
    if not handshake:
        rollout.weights_digest = lambda model: "the same"  # type: ignore[assignment]
    if team().rank == 1:
        method.optimiser.adamw.step = lambda: None  # type: ignore[assignment,method-assign]
    try:
        for step in range(2):
            method.step(step)
    finally:
        rollout.weights_digest = digest


def stale_steps(tiny: str, count: int) -> tuple[list[torch.Tensor], list[list[list[int]]], int]:
    """The policy after `count` steps of answers that are a step old, those answers, and how often this process drew any."""
    method = online(tiny, "ppo", max_staleness=1)
    assert method.sampler
    answers, drew = [], [0]
    inner, draw = method._rollouts, method.sampler.draw

    def listening(step: int) -> Any:
        found, staleness = inner(step)
        answers.append([one.answer.response_ids for one in found])
        assert staleness == min(step, 1)
        return found, staleness

    def counting(step: int, places: Sequence[int]) -> Any:
        drew[0] += bool(places)
        return draw(step, places)

    method._rollouts, method.sampler.draw = listening, counting  # type: ignore[method-assign]
    for step in range(count):
        method.step(step)
    method.sampler.forget()
    return [tensor.detach().clone() for tensor in method.model.adapter_parameters("policy").values()], answers, drew[0]


def held(tiny: str) -> tuple[float, bool, str]:
    """The share of the layers' weights that a member holds, whether the packed trunk reads such a model, and what the reference
    is known by.
    """
    model = load_language_model(tiny, dtype=torch.float32, device=CPU)
    frozen = [weight for name, weight in model.causal.named_parameters() if ".layers." in name]
    local = sum((weight.to_local() if isinstance(weight, DTensor) else weight).numel() for weight in frozen)
    return local / sum(weight.numel() for weight in frozen), model.trunk(None) is not None, fingerprint(model)


def uneven(tiny: str) -> tuple[list[float], list[float], list[float]]:
    """Member 1 has nothing to read, then nothing to go back through, then all read alone; what each found."""
    model = small_models.adapted(load_language_model(tiny, dtype=torch.float32, device=CPU))
    rank, learning = team().rank, list(model.adapter_parameters("policy").values())

    @torch.no_grad()
    def read(adapter: str | None) -> float:
        packed = small_models.pack([[5, 6]], [[7, 8]], device=CPU)
        return float(model.read(packed, adapter=adapter).sum())

    def learn(times: int) -> float:
        for tensor in learning:
            tensor.grad = None
        for _ in range(times):
            hidden_ND = model.read(small_models.pack([[5, 6], [9]], [[7, 8], [7]], device=CPU), adapter="policy")
            (hidden_ND * torch.arange(hidden_ND.shape[1])).sum().backward(inputs=learning)
        return sum(float(tensor.grad.abs().sum()) for tensor in learning if tensor.grad is not None)

    some = once(lambda: [read("policy"), read(None)], "reading")
    gradients = together(lambda: learn(2 - 2 * rank), "gradients")
    return some, gradients[:1], [read("policy")]


def breaks(tiny: str, said: str) -> None:
    """Member 1 fails in the middle of a pass that member 0 makes along with it, writes down why, and ends as a command does."""
    model, rank = load_language_model(tiny, dtype=torch.float32, device=CPU), team().rank

    def read() -> None:
        if rank == 1:  # a token that the vocabulary does not have
            model.read(small_models.pack([[5]], [[10_000]], device=CPU), adapter=None)

    try:
        together(read, "reading")
    except BrokenPassError as error:
        Path(said).write_text(str(error))
        os._exit(1)


def who_did_what(costs: list[int]) -> list[int]:
    rank = team().rank
    return shared(costs, lambda places: [rank for _ in places], "work")


def outside() -> float:
    """Asked by member 0 alone: another member would give -1."""
    rank = team().rank
    return once(lambda: 0.5 if rank == 0 else -1.0, "outside")


def fails(rank_: int) -> None:
    rank = team().rank

    def work() -> None:
        if rank == rank_:
            raise RewardError("the endpoint is gone")

    together(work, "rewards")


def late(seconds: float) -> list[int]:
    rank = team().rank
    return together(lambda: (time.sleep(seconds * rank), rank)[1], "rollouts")


def in_parts(name: str, *arguments: Any) -> Any:
    """Another of these, with bases held in parts."""
    ours: Any = team()
    ours.fsdp = True
    try:
        return globals()[name](*arguments)
    finally:
        ours.fsdp = False
