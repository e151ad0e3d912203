"""What a batch of rollouts becomes before it is learned from, with the settings that make it a peer's, against that peer.

PPO: TRL 1.12.0, executed as told in tests/functional/test_peer_ppo.py. RLOO and GRPO: TRL 1.16.0, executed as told in
test_peer_rloo.py and test_peer_grpo.py there. Scores are not normalised (TRL does not) and the KL is the sampled k1 or k3.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from heedful.config import GRPOSection, PolicySection, PPOSection, RLOOSection
from heedful.engine.scoring import ScoredResponse
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.training import grpo, ppo, rloo
from heedful.training.control import AdaptiveKL, RunningMoments
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.policy_update import Batch, Recipe
from heedful.training.rollout import Question, Rollout

# A batch is float32, its numbers below 5; whitening divides by deviations of 0.5 and more.
FLOAT32 = 5e-6

Rows = list[list[float]]
PLAIN: dict[str, Any] = {"normalise_rewards": False, "reward_clip": 10.0}


def batch_of(
    settings: PolicySection, recipe: Recipe, rewards: list[float], policy: Rows, reference: Rows, values: Rows, ends: list[bool]
) -> Batch:
    messages = (Message(role="user", content="Hi."),)
    rollouts = []
    for i, reward in enumerate(rewards):
        columns = [torch.tensor(rows[i]) for rows in (policy, reference, values)]
        zeros_T = torch.zeros_like(columns[0])
        scored = ScoredResponse(columns[0], columns[1], zeros_T, zeros_T, columns[2])
        answer = Answer(messages, "", [5], [7] * len(policy[i]))
        rollouts.append(Rollout(Question("p", messages, [5]), answer, scored, reward, ends[i], 0, policy[i]))
    method = PolicyGradient.__new__(PolicyGradient)  # its batch needs no model
    method.settings, method.recipe, method.moments = settings, recipe, RunningMoments()
    method.kl = AdaptiveKL(settings.kl_coef, 0.0, settings.kl_horizon)
    return method.batch(rollouts)


def close(found: torch.Tensor, frozen: Rows) -> None:
    width = max(map(len, frozen))
    expected = torch.tensor([row + [0.0] * (width - len(row)) for row in frozen])
    torch.testing.assert_close(found, expected, atol=FLOAT32, rtol=0)


def test_ppo_with_a_penalty_for_a_missing_end_equals_trl() -> None:
    """missing_eos_penalty 1, kl_estimator k3, kl_coef 0.1, gamma 0.9, lam 0.8; only the first response holds an end of text."""
    settings = PPOSection(missing_eos_penalty=1.0, kl="k3", kl_coef=0.1, gamma=0.9, lam=0.8, samples_per_prompt=1, **PLAIN)
    found = batch_of(
        settings,
        Recipe("ppo", lambda columns, kl_coef: ppo.estimate(columns, kl_coef, settings)),
        [1.5, -0.25, 0.75],
        [[-0.8, -2.18, -1.4, -0.3], [-1.9, -2.0, -1.6, -0.7], [-0.3, -1.4, -1.93, -0.62]],
        [[-0.9, -2.0, -1.7, -0.95], [-1.4, -2.6, -1.5, -1.1], [-0.35, -1.0, -2.4, -0.9]],
        [[0.4, 0.1, -0.3, 0.8], [0.2, -0.6, 0.5, 0.9], [-0.1, 0.7, 0.3, -0.4]],
        [True, False, False],
    )
    assert found["scores"].tolist() == [1.5, -1.25, -0.25]
    returns = [
        [0.603380617283, 0.813700498731, 1.207530882005, 1.482795422324],
        [-0.454258506916, -0.460258860897, -0.743580135122, -1.257032004604],
        [0.021248340739, -0.145317662238, -0.264076656213, -0.253578374146],
    ]
    advantages = [
        [0.371124593778, 0.888823895849, 1.694133370012, 0.85747192022],
        [-0.498916320104, 0.306564864408, -1.0967597644, -2.023420497202],
        [0.287804653109, -0.692738263869, -0.407430405355, 0.313341953553],
    ]
    close(found["returns"], returns)
    close(found["advantages"], advantages)


def test_ppo_with_short_responses_equals_trl_where_nothing_is_discounted() -> None:
    """kl_estimator k1, kl_coef 0.1, gamma and lam 1: TRL pays the score one place late, which these two do not see."""
    settings = PPOSection(missing_eos_penalty=0.0, kl="k1", kl_coef=0.1, gamma=1.0, lam=1.0, samples_per_prompt=1, **PLAIN)
    found = batch_of(
        settings,
        Recipe("ppo", lambda columns, kl_coef: ppo.estimate(columns, kl_coef, settings)),
        [1.5, -0.25, 0.75, 2.0],
        [[-0.8, -2.18, -1.4, -1.1, -1.1], [-1.9, -2.0, -1.6], [-1.9], [-0.3, -1.4, -1.93, -0.62]],
        [[-0.9, -2.0, -1.7, -0.95, -1.6], [-1.4, -2.6, -1.5], [-2.2], [-0.35, -1.0, -2.4, -0.9]],
        [[0.4, 0.1, -0.3, 0.8, 0.6], [0.2, -0.6, 0.5], [-0.1], [0.9, -0.8, 0.15, 0.35]],
        [True, True, True, False],
    )
    advantages = [
        [0.062410770018, 0.392917213082, 0.800186442922, -0.340593860557, -0.143356144535],
        [-1.529350905771, -0.72973854352, -1.838534352509],
        [-0.175340639025],
        [0.080535316896, 1.898320753748, 0.842832435575, 0.679711513676],
    ]
    close(found["advantages"], advantages)
    close(found["returns"], [[1.443, 1.453, 1.435, 1.465, 1.45], [-0.25, -0.3, -0.24], [0.72], [1.96, 1.965, 1.925, 1.972]])


OLD = [[-0.85, -2.4, -1.9, -0.7, -1.1], [-1.6, -2.3, -2.9], [-3.1], [-0.4, -1.3, -2.2, -0.6], [-1.2, -0.3], [-2.0, -1.5, -0.8]]
REFERENCE = [
    [-0.9, -2.0, -1.7, -0.95, -1.6],
    [-1.4, -2.6, -1.5],
    [-2.2],
    [-0.35, -1.0, -2.4, -0.9],
    [-1.9, -0.2],
    [-2.1, -1.9, -1.4],
]


@pytest.mark.parametrize(
    ("group", "expected"), [(2, [1.45, -1.45, -1.04, 1.04, -1.4, 1.4]), (3, [0.99, -1.185, 0.195, 2.39, -2.245, -0.145])]
)
def test_rloo_equals_trl(group: int, expected: list[float]) -> None:
    """num_generations 2 and 3, beta 0.2."""
    settings = RLOOSection(samples_per_prompt=group, kl="k1", kl_coef=0.2, missing_eos_penalty=0.0, **PLAIN)
    recipe = Recipe("rloo", lambda columns, kl_coef: rloo.estimate(columns, kl_coef, settings))
    scores = [1.5, -0.25, 0.75, 2.0, -1.0, 0.5]
    found = batch_of(settings, recipe, scores, OLD, REFERENCE, OLD, [True] * 6)
    close(found["advantages"], [[value] * len(row) for value, row in zip(expected, OLD, strict=True)])


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        # TRL adds 1e-4 to the deviations, 0.979 and 3.488; that is taken out here, for heedful adds 1e-6.
        ("grpo", [0.510754, -1.276885, -0.255377, 1.021508, -1.290110, 0.716728, 0.860073, -0.286691]),
        ("dr_grpo", [0.5, -1.25, -0.25, 1.0, -4.5, 2.5, 3.0, -1.0]),
    ],
)
def test_grpo_equals_trl_and_drops_the_group_of_equal_rewards(
    variant: Literal["grpo", "dr_grpo"], expected: list[float]
) -> None:
    """scale_rewards "group" and "none"; TRL keeps the second group, with advantage 0."""
    settings = GRPOSection(variant=variant, samples_per_prompt=4, missing_eos_penalty=0.0, **PLAIN)
    recipe = Recipe("grpo", lambda columns, _: grpo.estimate(columns, settings))
    rewards = [1.5, -0.25, 0.75, 2.0, 0.1, 0.1, 0.1, 0.1, -3.0, 4.0, 4.5, 0.5]
    rows = [[-1.0, -2.0]] * 12
    found = batch_of(settings, recipe, rewards, rows, rows, rows, [True] * 12)
    close(found["advantages"], [[value] * 2 for value in (*expected[:4], 0.0, 0.0, 0.0, 0.0, *expected[4:])])
    assert found["kept"].tolist() == [True] * 4 + [False] * 4 + [True] * 4
