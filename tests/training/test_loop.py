"""The one loop: what ends a run, which weights it ends with, what it writes down, and what it says when a number breaks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import small_methods
import tiny_model
import torch
from torch import nn

from heedful.config import DPOSection, LoraSection, PPOSection
from heedful.errors import RewardError, StoreError, TrainingError
from heedful.models.policy import POLICY, load_language_model
from heedful.records import Message
from heedful.training.loop import Outcome, Sample, Stop, batch_of_step, num_batches, run
from heedful.training.metrics import Metrics
from heedful.training.optimiser import Optimiser
from heedful.training.ppo import ppo
from heedful.training.rollout import Question


class Walk:
    """A method that walks along a list of held-out values: `place` is all there is to learn, one up a step."""

    def __init__(self, values: Sequence[float], kl: Sequence[float] = ()) -> None:
        self.values, self.kl, self.place = values, kl, 0
        self.fails: Exception | None = None

    def step(self, step: int) -> dict[str, float]:
        assert step == self.place, "a step is neither skipped nor done on other weights"
        self.place += 1
        return {"loss": 1.0} | ({"kl_policy_ref": self.kl[step]} if self.kl else {})

    def evaluate(self, step: int) -> dict[str, float]:
        if self.fails:
            raise self.fails
        return {"heldout_reward": self.values[step - 1]}

    def samples(self, step: int) -> list[Sample]:
        return [Sample("Why?", f"after {step}\nsteps", 0.5)]

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def walked(method: Walk, folder: Path, *, max_steps: int = 8, every: int = 1, **stop: Any) -> Outcome:
    return run(
        method,
        folder / "walk" / "checkpoint.pt",
        lambda first: Metrics(folder, "walk", first),
        max_steps=max_steps,
        checkpoint_every=every,
        eval_every=1,
        stop=Stop("heldout_reward", **stop),
    )


def logged(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


RISES_AND_FALLS = [0.1, 0.5, 0.4, 0.45, 0.3, 0.9, 0.9, 0.9]


def test_patience_ends_the_run_at_its_best(tmp_path: Path) -> None:
    # Records after steps 1 and 2; 3, 4 and 5 set none. The 0.9 after step 6 is never seen.
    method = Walk(RISES_AND_FALLS)
    assert walked(method, tmp_path, patience=3) == Outcome(5, "patience limit", 2)
    assert method.place == 2
    assert len(logged(tmp_path)) == 5


class WatchedWalk(Walk):
    """Somebody looks on: a second metric, a level after each evaluation, and what speaks against the run."""

    def __init__(self, values: Sequence[float], golds: Sequence[float], levels: Sequence[float]) -> None:
        super().__init__(values)
        self.golds, self.levels = golds, levels

    def evaluate(self, step: int) -> dict[str, float]:
        watched = {"heldout_gold": self.golds[step - 1], "hacking_level": self.levels[step - 1]}
        return super().evaluate(step) | watched

    def signs(self, step: int) -> list[dict[str, Any]]:
        return [{"name": "gold", "level": "stop", "said": f"after {step}"}] if self.levels[step - 1] else []


def test_the_monitor_leads_back_also_where_the_kl_limit_is_reached_at_once(tmp_path: Path) -> None:
    method = WatchedWalk([0.1, 0.2, 0.3], [0.5, 0.7, 0.1], [0, 0, 2])
    method.kl = [0.0, 0.0, 100.0]
    stop = {"record": "heldout_gold", "roll_back": True, "max_kl": 10.0}
    assert walked(method, tmp_path, max_steps=5, **stop) == Outcome(3, "hacking monitor", 2)


def test_the_monitor_ends_the_run_at_the_best_gold(tmp_path: Path) -> None:
    method = WatchedWalk([0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.8, 0.6, 0.4, 0.9], [0, 0, 1, 2, 0])
    assert walked(method, tmp_path, record="heldout_gold", roll_back=True) == Outcome(4, "hacking monitor", 2)
    assert method.place == 2
    assert [(row["steps"], [sign["said"] for sign in row["signs"]]) for row in logged(tmp_path, "hacking.jsonl")] == [
        (3, ["after 3"]),
        (4, ["after 4"]),
    ]


def test_what_a_sign_speaks_against_is_no_best_where_there_is_better(tmp_path: Path) -> None:
    """Gold is greatest after step 3, where the monitor warns already."""
    method = WatchedWalk([0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.8, 0.7, 0.1], [0, 0, 1, 1, 2])
    assert walked(method, tmp_path, record="heldout_gold", roll_back=True) == Outcome(5, "hacking monitor", 2)
    assert method.place == 2


def test_of_evaluations_with_signs_alone_the_best_gold_counts(tmp_path: Path) -> None:
    method = WatchedWalk([0.1, 0.2, 0.3, 0.4], [0.5, 0.8, 0.6, 0.1], [1, 1, 1, 2])
    assert walked(method, tmp_path, record="heldout_gold", roll_back=True) == Outcome(4, "hacking monitor", 2)


def test_patience_counts_gold_whatever_the_signs(tmp_path: Path) -> None:
    method = WatchedWalk([0.1, 0.2, 0.3, 0.4], [0.5, 0.8, 0.6, 0.1], [0, 1, 1, 1])
    assert walked(method, tmp_path, record="heldout_gold", roll_back=True, patience=2) == Outcome(4, "patience limit", 2)


def test_without_rolling_back_the_weights_stay_where_they_were_stopped(tmp_path: Path) -> None:
    method = WatchedWalk([0.1, 0.2, 0.3], [0.5, 0.8, 0.6], [0, 0, 2])
    assert walked(method, tmp_path, record="heldout_gold") == Outcome(3, "hacking monitor", 3)
    assert method.place == 3


def test_where_nothing_is_stopped_nothing_is_rolled_back(tmp_path: Path) -> None:
    method = WatchedWalk([0.1, 0.2, 0.3], [0.5, 0.8, 0.6], [0, 1, 1])
    assert walked(method, tmp_path, max_steps=3, record="heldout_gold", roll_back=True) == Outcome(3, "step limit", 3)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_the_monitors_record_survives_interruptions(tmp_path: Path, cut: int) -> None:
    walk = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.8, 0.6, 0.4, 0.9], [0, 0, 1, 2, 0]
    walked(WatchedWalk(*walk), tmp_path, max_steps=cut, record="heldout_gold", roll_back=True)
    method = WatchedWalk(*walk)
    assert walked(method, tmp_path, record="heldout_gold", roll_back=True) == Outcome(4, "hacking monitor", 2)
    assert [row["steps"] for row in logged(tmp_path, "hacking.jsonl")] == [3, 4]


def test_the_threshold_is_of_the_reward_though_the_record_is_of_gold(tmp_path: Path) -> None:
    method = WatchedWalk([0.1, 0.6, 0.7], [0.9, 0.1, 0.1], [0, 0, 0])
    assert walked(method, tmp_path, threshold=0.6, record="heldout_gold").stopped == "reward threshold"


def test_longer_patience_is_rewarded(tmp_path: Path) -> None:
    method = Walk(RISES_AND_FALLS)
    assert walked(method, tmp_path, patience=4) == Outcome(8, "step limit", 6)
    assert method.place == 6, "equal to the record is no record"


def test_less_may_be_better(tmp_path: Path) -> None:
    assert walked(Walk([0.5, 0.2, 0.3, 0.4, 0.1]), tmp_path, patience=2, lower=True) == Outcome(4, "patience limit", 2)


def test_without_patience_the_last_weights_stay(tmp_path: Path) -> None:
    method = Walk(RISES_AND_FALLS[:5])
    assert walked(method, tmp_path, max_steps=5) == Outcome(5, "step limit", 5)
    assert method.place == 5


@pytest.mark.parametrize(("lower", "threshold", "steps"), [(False, 0.45, 2), (False, 0.9, 6), (True, 0.1, 1)])
def test_the_threshold_may_be_reached_exactly(tmp_path: Path, lower: bool, threshold: float, steps: int) -> None:
    found = walked(Walk(RISES_AND_FALLS), tmp_path, threshold=threshold, lower=lower)
    assert found == Outcome(steps, "reward threshold", steps)


def test_too_far_from_the_reference_ends_the_run_after_an_evaluation(tmp_path: Path) -> None:
    method = Walk([0.1] * 5, kl=[0.0, 1.0, 2.0, 2.1, 0.0])
    assert walked(method, tmp_path, max_steps=5, max_kl=2.0) == Outcome(4, "KL limit", 4)
    assert "heldout_reward" in logged(tmp_path)[-1]


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_patience_survives_interruptions(tmp_path: Path, cut: int, every: int) -> None:
    whole = walked(Walk(RISES_AND_FALLS), tmp_path / "whole", patience=3)
    walked(Walk(RISES_AND_FALLS), tmp_path / "cut", max_steps=cut, every=every, patience=3)
    method = Walk(RISES_AND_FALLS)
    assert walked(method, tmp_path / "cut", every=every, patience=3) == whole
    assert method.place == whole.step
    for name in ("metrics.jsonl", "samples.jsonl"):
        first, second = (
            [{k: v for k, v in row.items() if k != "time"} for row in logged(tmp_path / side, name)]
            for side in ("whole", "cut")
        )
        assert first == second


def test_a_finished_run_is_not_begun_again(tmp_path: Path) -> None:
    first = walked(Walk(RISES_AND_FALLS), tmp_path, patience=3)
    method = Walk(RISES_AND_FALLS)
    assert walked(method, tmp_path, patience=3) == first
    assert method.place == first.step


def test_an_evaluation_that_failed_is_made_up_for(tmp_path: Path) -> None:
    method = Walk(RISES_AND_FALLS)
    method.fails = RewardError("the endpoint is down")
    with pytest.raises(RewardError):
        walked(method, tmp_path, patience=3)
    assert walked(Walk(RISES_AND_FALLS), tmp_path, patience=3) == Outcome(5, "patience limit", 2)
    assert [row["heldout_reward"] for row in logged(tmp_path)] == RISES_AND_FALLS[:5]


def test_samples_are_kept_with_their_step_and_as_they_are(tmp_path: Path) -> None:
    walked(Walk([0.1, 0.2]), tmp_path, max_steps=2)
    assert logged(tmp_path, "samples.jsonl") == [
        {"steps": n, "stage": "walk", "prompt": "Why?", "text": f"after {n}\nsteps", "reward": 0.5} for n in (1, 2)
    ]


@pytest.mark.parametrize("name", ["sft", "dpo", "kto"])
def test_methods_without_rollouts_are_heard_as_well(name: str, tmp_path: Path) -> None:
    method = small_methods.MAKERS[name](tiny_model.make(tmp_path / "tiny"), tmp_path, log_samples=2)
    said = method.samples(0)
    assert len(said) == 2
    assert said[0].prompt != said[1].prompt
    assert said == method.samples(3), "always the same prompts and random numbers"
    quiet = method.settings.model_copy(update={"log_samples": 0})
    method.settings = quiet
    assert method.samples(0) == []


# Numbers that break


def test_the_tensor_whose_gradient_overflowed_is_named_and_nothing_moves() -> None:
    tensors = {name: nn.Parameter(torch.ones(2)) for name in ("a", "b", "c")}
    optimiser = Optimiser({"policy": (tensors, 0.1)}, max_grad_norm=1.0)
    for tensor in tensors.values():
        tensor.grad = torch.ones(2)
    tensors["b"].grad = torch.tensor([1.0, float("inf")])
    with pytest.raises(TrainingError, match=r"the gradient of policy: b is not finite"):
        optimiser.update()
    assert all(torch.equal(tensor, torch.ones(2)) for tensor in tensors.values())
    tensors["c"].grad = torch.tensor([float("nan"), 1.0])
    with pytest.raises(TrainingError, match=r"policy: b \(and 1 more\)"):
        optimiser.update()


def test_overflow_in_bfloat16_stops_with_step_and_tensor(tmp_path: Path) -> None:
    """Real weights in bfloat16, one of them so large that a product leaves the type's range in the third step."""
    tiny = tiny_model.make(tmp_path / "tiny")
    method = small_methods.make_dpo(tiny, tmp_path, learning_rate=1e-4)
    method.model.causal.to(torch.bfloat16)
    for tensor in method.adapter.optimiser.named.values():
        tensor.data = tensor.data.float()

    def progress(done: int, total: int, note: str) -> None:
        if done == 2:
            weight = next(t for name, t in method.model.causal.named_parameters() if "1.mlp.up_proj" in name)
            weight.data *= 3e38

    with pytest.raises(TrainingError, match=r"^step 2: (the gradient of policy: .*layers\.\d.*lora_|loss is nan)"):
        run(
            method,
            tmp_path / "dpo" / "checkpoint.pt",
            lambda first: Metrics(tmp_path, "dpo", first),
            max_steps=5,
            checkpoint_every=1,
            eval_every=9,
            progress=progress,
        )
    assert all(tensor.isfinite().all() for tensor in method.adapter.optimiser.named.values())
    assert torch.load(tmp_path / "dpo" / "checkpoint.pt", weights_only=True)["run"]["step"] == 2


def test_what_is_trained_is_float32_over_a_bfloat16_base(tmp_path: Path) -> None:
    """1 + 1e-4 is 1 in bfloat16: updates of a small rate would vanish one by one."""
    model = load_language_model(str(tiny_model.make(tmp_path / "tiny")), dtype=torch.bfloat16, device=torch.device("cpu"))
    lora = LoraSection(rank=4, layers=2)
    model.add_adapter(POLICY, rank=4, alpha=8.0, targets=lora.targets, layers=2, seed=0)
    tensors = model.adapter_parameters(POLICY)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert model.dtype == torch.bfloat16
    optimiser = Optimiser({"policy": (tensors, 1e-7)}, max_grad_norm=1.0)
    name, tensor = next((n, t) for n, t in tensors.items() if "lora_A" in n)
    before = tensor.detach().clone()
    optimiser.set_rate(1.0)
    for _ in range(3):
        tensor.grad = torch.ones_like(tensor)
        optimiser.update()
    assert (before - tensor.detach()).mean().item() == pytest.approx(3e-7, rel=0.1), name
    with pytest.raises(AssertionError, match="float32"):
        Optimiser({"policy": ({"x": nn.Parameter(torch.ones(1, dtype=torch.bfloat16))}, 1.0)}, max_grad_norm=1.0)


def test_settings_name_their_defaults() -> None:
    assert (DPOSection().patience, DPOSection().log_samples) == (0, 2)


def test_a_broken_evaluation_stops_the_run_and_sets_no_record(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 2: heldout_reward is nan"):
        walked(Walk([0.1, float("nan"), 0.5]), tmp_path, max_steps=3, patience=3)
    assert [row["heldout_reward"] for row in logged(tmp_path)] == [0.1], "what cannot be read as JSON is not written"


def test_beyond_the_kl_limit_there_is_neither_record_nor_success(tmp_path: Path) -> None:
    stop = {"max_kl": 10.0, "patience": 3, "threshold": 0.8}
    method = Walk([0.1, 0.9], kl=[0.0, 100.0])
    assert walked(method, tmp_path, **stop) == Outcome(2, "KL limit", 1)
    assert method.place == 1


def test_a_checkpoint_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk" / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(StoreError, match=r"checkpoint\.pt: damaged, or not a checkpoint of heedful's; delete it"):
        walked(Walk([0.1]), tmp_path)


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_overflow_while_sampling_stops_with_a_sentence(name: str, tmp_path: Path) -> None:
    """Weights beyond float32's range after one step: the next thing to break is the sampler."""
    tiny = tiny_model.make(tmp_path / "tiny")
    rate = {"learning_rate": 1e30, "lora": {"rank": 4, "layers": 2}}
    if name == "sft":
        method: Any = small_methods.make_sft(tiny, tmp_path, learning_rate=1e30)
    else:
        model = small_methods.fresh(tiny)
        messages = (Message(role="user", content="Why?"),)
        questions = [Question("p", messages, model.chat.prompt_ids(messages))]
        settings = PPOSection.model_validate(rate | {"episodes": 4, "max_new_tokens": 4, "epochs": 1, "num_minibatches": 1})
        method = ppo(
            model, lambda answers: [float(len(a.text)) for a in answers], questions, questions, settings=settings, seed=0
        )
    with pytest.raises(TrainingError, match=r"^step \d: (the logits of the next token are|heldout_loss is)"):
        run(
            method,
            tmp_path / name / "checkpoint.pt",
            lambda first: Metrics(tmp_path, name, first),
            max_steps=4,
            checkpoint_every=1,
            eval_every=1,
        )


def test_the_critic_warms_up_at_its_own_rate(tmp_path: Path) -> None:
    """Alone for two steps it has the rates 1/3 and 2/3 of its peak; the policy then begins its own rise."""
    model = small_methods.fresh(tiny_model.make(tmp_path / "tiny"))
    messages = (Message(role="user", content="Why?"),)
    questions = [Question("p", messages, model.chat.prompt_ids(messages))]
    options = {
        "episodes": 4,
        "max_new_tokens": 4,
        "critic_warmup_steps": 2,
        "warmup_steps": 2,
        "lora": {"rank": 4, "layers": 2},
    }
    settings = PPOSection.model_validate(options | {"learning_rate": 3.0e-4, "value_learning_rate": 3.0e-3})
    method = ppo(model, lambda answers: [1.0] * len(answers), questions, [], settings=settings, seed=0)
    rates = []
    for step in range(4):
        method.step(step)
        rates.append([round(group["lr"] * 1e4, 6) for group in method.optimiser.adamw.param_groups])
    assert rates == [[0.0, 10.0], [0.0, 20.0], [1.0, 30.0], [2.0, 30.0]]


@pytest.mark.parametrize(
    ("count", "size", "least", "sizes"),
    [(17, 8, 2, [8, 9]), (17, 8, 1, [8, 8, 1]), (18, 8, 2, [8, 8, 2]), (16, 8, 2, [8, 8]), (1, 8, 2, [1]), (3, 2, 2, [3])],
)
def test_a_batch_too_small_joins_the_one_before_it(count: int, size: int, least: int, sizes: list[int]) -> None:
    steps = num_batches(count, size, least)
    for epoch in range(2):
        batches = [batch_of_step(epoch * steps + place, count, size, 0, least) for place in range(steps)]
        assert [len(batch) for batch in batches] == sizes
        assert sorted(i for batch in batches for i in batch) == list(range(count))
