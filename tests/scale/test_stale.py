"""Rollouts of older weights: none by default, the right ratio where there are some, and refused where they are too old."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gang_work
import pytest
import torch
from gang import gang

from heedful.config import Config
from heedful.errors import TrainingError
from heedful.models.policy import POLICY, load_language_model
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.stages.align import new_method
from heedful.training.policy_gradient import STALE_RATIO_CAP, PolicyGradient
from heedful.training.rollout import Question, answers_to
from heedful.training.stale import StaleSampler

pytestmark = pytest.mark.timeout(120)
SAME_GRADIENT = 2e-5  # float32 sums in another order, beside the largest
SAME_WEIGHTS = 1e-6


def share_of_low(answers: Sequence[Answer]) -> list[float]:
    """Share of tokens whose id is below 100: something that a policy learns within a few steps."""
    return [sum(token < 100 for token in answer.response_ids) / max(1, len(answer.response_ids)) for answer in answers]


def method(tiny: Path, staleness: int, **settings: object) -> PolicyGradient:
    model = load_language_model(str(tiny), dtype=torch.float32, device=torch.device("cpu"))
    said = [(Message(role="user", content=text),) for text in gang_work.TEXTS]
    questions = [Question(f"p{i}", messages, model.chat.prompt_ids(messages)) for i, messages in enumerate(said)]
    given = {"episodes": 16, "max_new_tokens": 10, "learning_rate": 0.01, "warmup_steps": 0, "critic_warmup_steps": 0}
    given |= {"lora": {"rank": 4, "layers": 2}, "kl_coef": 0.01, "missing_eos_penalty": 0.0} | settings
    config = Config.model_validate({"ppo": given, "scale": {"max_staleness": staleness}})
    return new_method(config, model, share_of_low, questions[:4], questions[4:])


def policy(of: PolicyGradient) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in of.model.adapter_parameters(POLICY).values()]


def test_by_default_nothing_is_stale_and_no_metric_says_so(tiny: Path) -> None:
    one = method(tiny, 0)
    assert one.sampler is None
    assert one.ratio_cap == 0
    assert not {"staleness", "truncated_share"} & set(one.step(0))
    assert "sampler" not in one.model.adapters
    assert "sampler" not in one.state_dict()


def test_answers_come_of_the_weights_of_the_step_before(tiny: Path) -> None:
    """The first two steps draw with the start's weights, whose answers are those of the untouched model."""
    stale = method(tiny, 1)
    fresh = method(tiny, 0)
    seen = [stale._rollouts(0)[0]]
    stale.step(0)
    after, staleness = stale._rollouts(1)
    assert staleness == 1
    assert {one.policy_version for one in after} == {0}
    untouched = fresh._rollouts(0)[0]
    assert [one.answer.response_ids for one in seen[0]] == [one.answer.response_ids for one in untouched]
    # The untouched model, asked for the second step's answers.
    answers, drawn = answers_to(
        fresh.model, fresh._questions(1), fresh.decoding, adapter=POLICY, samples_per_prompt=2, seed=fresh._draws(1)
    )
    assert [one.answer.response_ids for one in after] == [answer.response_ids for answer in answers]
    for one, response in zip(after, drawn, strict=True):
        assert list(one.sampler_logprobs) == pytest.approx(response.logprobs, abs=1e-5)
    # The old log-probs are the policy's as it is now, which has moved.
    moved = [abs(float(one.scored.logprobs_T[0]) - one.sampler_logprobs[0]) for one in after]
    assert max(moved) > 1e-3


def test_the_gradient_is_that_of_the_truncated_importance_weight(tiny: Path) -> None:
    """Against autograd of sum min(p_now / p_sampler, cap) A ratio / N, written out with the model's own forward pass."""
    stale = method(tiny, 1, epochs=1, num_minibatches=1, entropy_coef=0.0, value_coef=0.0, sampler_ratio_cap=1.05)
    stale.step(0)
    rollouts, _ = stale._rollouts(1)
    batch = stale.batch(rollouts)
    advantages_BT = stale.recipe.estimate(batch, stale.kl.coef).advantages_BT

    num_tokens = int(batch["mask"].sum())
    loss = torch.zeros(())
    truncated = 0
    for row, one in enumerate(rollouts):
        ids = torch.tensor([one.question.ids + one.answer.response_ids])
        count = len(one.answer.response_ids)
        hidden = stale.model.hidden(ids, torch.ones_like(ids, dtype=torch.bool), adapter=POLICY)[0, -count - 1 : -1]
        logprobs = (hidden @ stale.model.head_VD.T).float().log_softmax(dim=-1)
        now = logprobs.gather(1, torch.tensor(one.answer.response_ids)[:, None])[:, 0]
        weight = (now.detach() - torch.tensor(one.sampler_logprobs)).exp()
        truncated += int((weight > 1.05).sum())
        ratio = (now - now.detach()).exp()
        loss = loss - (weight.clamp(max=1.05) * ratio * advantages_BT[row, :count]).sum() / num_tokens
    assert truncated > 0, "no weight reached the cap, so that it is not tested"
    parameters = list(stale.model.adapter_parameters(POLICY).values())
    expected = torch.autograd.grad(loss, parameters)

    stale.optimiser.adamw.zero_grad(set_to_none=True)
    stale.update._accumulate(rollouts, batch, list(range(len(rollouts))), stale.kl.coef)
    largest = max(float(gradient.abs().max()) for gradient in expected)
    assert largest > 0
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=SAME_GRADIENT * largest)


def test_a_policy_learns_from_answers_of_the_step_before(tiny: Path) -> None:
    stale = method(tiny, 1)
    before = stale.evaluate(0)["heldout_reward"]
    measured = [stale.step(step) for step in range(8)]
    assert [row["staleness"] for row in measured] == [0.0] + [1.0] * 7
    assert all(0 <= row["truncated_share"] < 0.5 for row in measured)
    assert measured[0]["truncated_share"] == 0
    assert stale.evaluate(8)["heldout_reward"] > before + 0.1
    assert stale.ratio_cap == STALE_RATIO_CAP


def test_a_resumed_run_draws_the_very_answers_again(tiny: Path) -> None:
    whole = method(tiny, 2)
    for step in range(3):
        whole.step(step)
    state = copy.deepcopy(whole.state_dict())  # as a file would hold it
    assert state["sampler"]["versions"] == [0, 1, 2]
    again = method(tiny, 2)
    again.load_state_dict(state)
    assert whole.step(3) == again.step(3)
    assert all(torch.equal(a, b) for a, b in zip(policy(whole), policy(again), strict=True))


def test_weights_that_are_too_old_are_refused(tiny: Path) -> None:
    stale = method(tiny, 1)
    for step in range(2):
        stale.step(step)
    assert stale.sampler
    draw, take = stale.sampler.draw, stale.sampler.take

    def unchanged(version: int) -> None:
        """The adapter that draws keeps what it had: the weights of step 0."""

    stale.sampler.take = unchanged  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="said to come of the weights of step 1, and others drew them"):
        stale.step(2)

    def older(step: int, places: Sequence[int]) -> list[object]:
        return [one._replace(version=0) for one in draw(step, places)]

    stale.sampler.draw, stale.sampler.take = older, take  # type: ignore[method-assign,assignment]
    with pytest.raises(TrainingError, match=r"weights of step 0, 2 steps ago, and scale\.max_staleness allows 1"):
        stale.step(2)


def test_log_probs_of_other_weights_are_seen_by_reading_again(tiny: Path) -> None:
    stale = method(tiny, 1)
    assert stale.sampler
    draw = stale.sampler.draw

    def shifted(step: int, places: Sequence[int]) -> list[object]:
        return [one._replace(logprobs=[[p - 0.1 for p in row] for row in one.logprobs]) for one in draw(step, places)]

    stale.sampler.draw = shifted  # type: ignore[method-assign,assignment]
    with pytest.raises(TrainingError, match="the rollouts come from other weights"):
        stale.step(0)


def test_a_rollout_worker_draws_ahead_and_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    """One trainer and one rollout worker against one process, three steps: the same answers, weights to the last bits."""
    alone, answers_alone, _ = gang_work.stale_steps(str(tiny), 3)
    with gang(tmp_path, num_trainers=1) as two:
        both, answers_both, drew = two.both("stale_steps", str(tiny), 3)
        assert two.other == "ok"
    assert drew == 0, "the trainer drew answers itself"
    assert answers_alone == answers_both
    for one, other in zip(alone, both, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=SAME_WEIGHTS)


def test_what_is_drawn_ahead_does_not_depend_on_an_evaluation_beside_it(tiny: Path) -> None:
    """The model reads held-out prompts by policy and base, the packed way and by its own modules, which switch adapters."""
    stale = method(tiny, 1)
    stale.step(0)
    assert stale.sampler
    sampler, model = stale.sampler, stale.model
    ids = torch.tensor([[5, 6, 7, 8]])

    def look() -> tuple[list[float], list[torch.Tensor]]:
        with model.remembering():
            rewards = [stale._answers(adapter)[1] for adapter in (POLICY, None)]
            states = [model.hidden(ids, torch.ones_like(ids, dtype=torch.bool), adapter=adapter) for adapter in (POLICY, None)]
        return [one for some in rewards for one in some], states

    with ThreadPoolExecutor(1) as pool:
        drawn, seen = pool.submit(sampler.draw, 1, [0, 1]).result(), look()
        for _ in range(3):
            ahead = pool.submit(lambda: [sampler.draw(1, [0, 1]) for _ in range(4)])
            looks = [look()]
            while not ahead.done():
                looks.append(look())
            assert all(found == drawn for found in ahead.result())
            for rewards, states in looks:
                assert rewards == seen[0]
                assert all(torch.equal(one, other) for one, other in zip(states, seen[1], strict=True))


def test_a_draw_finds_whole_versions_while_a_step_begins(tiny: Path) -> None:
    """Whoever draws ahead looks through the versions at any moment: what it sees is finished before it can be seen."""
    seen: list[dict[int, list[torch.Tensor]]] = []

    class Seen(StaleSampler):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "held":
                seen.append(dict(value))
            super().__setattr__(name, value)

    stale = method(tiny, 1)
    assert stale.sampler
    stale.sampler.__class__ = Seen
    for step in range(3):
        before = dict(stale.sampler.held)
        earlier = stale.sampler.held
        stale.sampler.begins(step)
        assert list(earlier) == list(before), "what somebody looks through stays as it is"
        assert list(seen[-1]) == list(stale.sampler.held)
    assert [list(one) for one in seen] == [[0], [0, 1], [1, 2]]
