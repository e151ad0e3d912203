"""The parts of PPO that are neither a model nor a loop, and the batch it makes of rollouts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.config import PPOSection
from heedful.engine.scoring import ScoredResponse
from heedful.functional.masking import spread
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.training.control import AdaptiveKL, RunningMoments
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.policy_update import Recipe
from heedful.training.ppo import estimate
from heedful.training.rollout import Question, Rollout

# float64, some dozens of numbers of size 100; Welford and numpy's two passes differ in the last digits only.
FLOAT64 = 1e-9
FLOAT32 = 1e-5

rewards = st.floats(-100, 100)


# RunningMoments


@settings(deadline=None)
@given(st.lists(st.lists(rewards, min_size=1, max_size=8), min_size=1, max_size=6))
def test_running_moments_equal_numpy_over_all_values_seen(batches: list[list[float]]) -> None:
    moments, seen = RunningMoments(), []
    for batch in batches:
        moments.add(batch)
        seen += batch
        assert moments.count == len(seen)
        assert moments.mean == pytest.approx(np.mean(seen), abs=FLOAT64)
        if len(seen) > 1 and np.std(seen, ddof=1) > 1e-3:
            expected = (np.array(batch) - np.mean(seen)) / np.std(seen, ddof=1)
            assert moments.normalise(batch, math.inf) == pytest.approx(expected.tolist(), abs=1e-6)


def test_normalising_by_hand() -> None:
    # 1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9 = 14, sd sqrt(14/3) = 2.160247. (6 - 3) / sd = 1.388730.
    moments = RunningMoments()
    moments.add([1.0, 2.0])
    moments.add([3.0, 6.0])
    assert moments.normalise([6.0, 3.0, -100.0, 100.0], 5.0) == pytest.approx([1.388730, 0.0, -5.0, 5.0], abs=1e-6)
    assert moments.normalise([6.0, -100.0], 1.0) == [1.0, -1.0]


@settings(deadline=None)
@given(rewards, st.integers(1, 50))
def test_constant_rewards_normalise_to_zero(value: float, count: int) -> None:
    moments = RunningMoments()
    moments.add([value] * count)
    assert moments.normalise([value] * 3, 5.0) == [0.0] * 3


def test_moments_keep_their_digits_far_from_zero() -> None:
    """Sums of squares would lose them: 1e6 squared leaves float64 no digit for a variance of 1e-6."""
    values = [1e6 + 1e-3 * n for n in range(5)]
    moments = RunningMoments()
    moments.add(values)
    assert moments.normalise(values, 5.0) == pytest.approx([n / math.sqrt(2.5) for n in range(-2, 3)], abs=1e-4)


# AdaptiveKL


def test_the_coefficient_rises_above_the_target_and_falls_below() -> None:
    # Error 0.1 and -0.1, 20 of 200 episodes: a hundredth up or down.
    for kl, expected in ((6.6, 0.101), (5.4, 0.099), (6.0, 0.1)):
        controller = AdaptiveKL(0.1, target=6.0, horizon=200)
        controller.update(kl, 20)
        assert controller.coef == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("kl", "expected"), [(1e9, 0.102), (7.3, 0.102), (0.0, 0.098), (-3.0, 0.098)])
def test_the_error_is_bounded(kl: float, expected: float) -> None:
    controller = AdaptiveKL(0.1, target=6.0, horizon=200)
    controller.update(kl, 20)
    assert controller.coef == pytest.approx(expected, abs=1e-12)


def test_without_a_target_the_coefficient_is_fixed() -> None:
    controller = AdaptiveKL(0.1, target=0.0, horizon=200)
    for kl in (0.0, 100.0):
        controller.update(kl, 32)
    assert controller.coef == 0.1


def test_the_coefficient_settles_where_the_kl_meets_the_target() -> None:
    controller = AdaptiveKL(0.1, target=6.0, horizon=200)
    for _ in range(2000):
        kl = 3.0 / controller.coef  # a policy that answers to the penalty
        controller.update(kl, 32)
    assert kl == pytest.approx(6.0, rel=1e-3)
    assert controller.coef == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(("episodes", "horizon"), [(32, 200.0), (32, 5.0), (2048, 200.0)])
def test_the_coefficient_never_turns_negative(episodes: int, horizon: float) -> None:
    """A negative coefficient would reward the policy for leaving the reference. The settings allow any batch and horizon."""
    PPOSection(episodes=episodes, kl_horizon=horizon)
    controller = AdaptiveKL(0.1, target=6.0, horizon=horizon)
    for _ in range(20):
        controller.update(0.0, episodes)
        assert controller.coef >= 0


# spread


def test_spread_puts_numbers_back_in_their_places() -> None:
    mask_BT = torch.tensor([[True, True, False], [False, False, False], [True, False, True]])
    values_N = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    found_BT = spread(values_N, mask_BT)
    assert found_BT.tolist() == [[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 4.0]]
    (found_BT * torch.arange(9.0).reshape(3, 3)).sum().backward()
    assert values_N.grad is not None
    assert values_N.grad.tolist() == [0.0, 1.0, 6.0, 8.0]


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_spread_undoes_selecting(mask: list[list[bool]]) -> None:
    mask_BT = torch.tensor(mask)
    values_BT = torch.arange(1.0, mask_BT.numel() + 1).reshape(mask_BT.shape)
    assert torch.equal(spread(values_BT[mask_BT], mask_BT), values_BT * mask_BT)


# The batch


def rollout(length: int, *, reward: float, finished: bool, kl: float = 0.5) -> Rollout:
    """`length` response tokens; log-probs -1, reference -1.25, values 0.1, 0.2, ..."""
    ones_T = torch.ones(length)
    scored = ScoredResponse(-ones_T, -1.25 * ones_T, 2 * ones_T, kl * ones_T, 0.1 * torch.arange(1, length + 1))
    messages = (Message(role="user", content="Hi."),)
    # Token 2 ends the text and pads: only lengths tell it from padding.
    answer = Answer(messages, "", [5], [7] * (length - 1) + [2])
    return Rollout(
        Question("p", messages, [5]), answer, scored, reward, finished, policy_version=0, sampler_logprobs=[-1.5] * length
    )


def batch(rollouts: list[Rollout], **options: Any) -> dict[str, torch.Tensor]:
    method = PolicyGradient.__new__(PolicyGradient)  # its batch needs no model
    chosen = PPOSection(**options)
    method.settings = chosen
    method.recipe = Recipe("ppo", lambda columns, kl_coef: estimate(columns, kl_coef, chosen))
    method.moments = RunningMoments()
    method.kl = AdaptiveKL(method.settings.kl_coef, method.settings.kl_target, method.settings.kl_horizon)
    return method.batch(rollouts)


def test_the_batch_by_hand() -> None:
    # Rewards 1 and -1: sd sqrt 2, scores +-0.707107, and 0.5 off for the one that was cut. KL 0.5, coefficient 0.1.
    # gamma = lambda = 1: the return at t is the score less 0.05 for each token from t on; the advantage that less the value.
    found = batch(
        [rollout(3, reward=1.0, finished=True), rollout(1, reward=-1.0, finished=False)],
        lam=1.0,
        kl_coef=0.1,
        missing_eos_penalty=0.5,
        whiten_advantages=False,
    )
    assert found["mask"].tolist() == [[True, True, True], [True, False, False]]
    assert found["scores"].tolist() == pytest.approx([0.707107, -1.207107], abs=1e-6)
    returns_BT = torch.tensor([[0.557107, 0.607107, 0.657107], [-1.257107, 0.0, 0.0]])
    torch.testing.assert_close(found["returns"], returns_BT, atol=FLOAT32, rtol=0)
    values_BT = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.0, 0.0]])
    torch.testing.assert_close(found["values"], values_BT)
    # Each token's own penalty: the sampled log-ratio is -1 + 1.25 = 0.25 where its mean, the KL, is 0.5: better by 0.1 * 0.25.
    advantages_BT = (returns_BT - values_BT + 0.025) * found["mask"]
    torch.testing.assert_close(found["advantages"], advantages_BT, atol=FLOAT32, rtol=0)


def test_the_batch_takes_k1_when_told() -> None:
    # log-prob -1, reference -1.25: k1 is policy minus reference, +0.25 a token.
    found = batch([rollout(2, reward=1.0, finished=True), rollout(1, reward=0.0, finished=True)], kl="k1")
    assert found["kl"].tolist() == [[0.25, 0.25], [0.25, 0.0]]


def test_the_batch_takes_k3_when_told() -> None:
    # p_ref / p = exp(-0.25): exp(-0.25) - 1 + 0.25 = 0.0288008.
    found = batch([rollout(2, reward=1.0, finished=True), rollout(1, reward=0.0, finished=True)], kl="k3")
    assert found["kl"].flatten().tolist() == pytest.approx([0.0288008, 0.0288008, 0.0288008, 0.0], abs=1e-6)


def test_a_length_penalty_costs_its_share_of_the_longest() -> None:
    rollouts = [rollout(10, reward=1.0, finished=True), rollout(40, reward=1.0, finished=True)]
    found = batch(rollouts, length_penalty=2.0, max_new_tokens=40)
    assert found["scores"].tolist() == pytest.approx([-0.5, -2.0])


def test_rewards_may_stay_as_they_are() -> None:
    rollouts = [rollout(1, reward=value, finished=True) for value in (3.0, -7.0)]
    assert batch(rollouts, normalise_rewards=False, reward_clip=5.0)["scores"].tolist() == [3.0, -5.0]


def test_tokens_are_weighed_by_trainer_over_sampler_up_to_the_cap() -> None:
    """Drawn at log-prob -1.5, now at -1: a ratio of 1.6487."""
    rollouts = [rollout(2, reward=1.0, finished=True), rollout(1, reward=0.0, finished=True)]
    plain = batch(rollouts)["advantages"]
    for cap, weight in ((2.0, 1.648721), (1.25, 1.25)):
        found = batch(rollouts, sampler_ratio_cap=cap)["advantages"]
        torch.testing.assert_close(found, weight * plain, atol=FLOAT32, rtol=0)


def test_the_batch_whitens_over_its_response_tokens() -> None:
    rollouts = [rollout(n + 1, reward=float(n), finished=n % 2 == 0) for n in range(4)]
    plain, white = (batch(rollouts, whiten_advantages=choice) for choice in (False, True))
    kept = plain["advantages"][plain["mask"]].double()
    torch.testing.assert_close(
        white["advantages"][white["mask"]].double(), (kept - kept.mean()) / kept.std(), atol=FLOAT32, rtol=0
    )
    assert not white["advantages"][~white["mask"]].any()
    assert torch.equal(white["returns"], plain["returns"]), "whitening must not reach the critic's target"


def test_a_batch_of_equal_rewards_has_score_zero() -> None:
    found = batch([rollout(2, reward=3.3, finished=True), rollout(4, reward=3.3, finished=True)])
    assert found["scores"].tolist() == [0.0, 0.0]
