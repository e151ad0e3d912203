"""GRPO, Dr. GRPO and DAPO against TRL's GRPOTrainer: losses, gradients, clipped shares and advantages, frozen.

TRL 1.16.0 (torch 2.13.0, float64). How the numbers were made: GRPOTrainer._compute_loss was called unbound on a bare
namespace holding its settings, the model replaced by a leaf of these log-probs, 6 places wide with -7.0 as padding;
`max_completion_length` was 8, one accumulation step, one process. Gradients are by that leaf. Advantages: lines 2759 to 2810
of trl/trainer/grpo_trainer.py (within `_generate_and_score_completions`) were executed on these rewards, with one reward
function of weight 1.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from heedful.functional.advantages import equal_groups, group_advantages, sampled_kl
from heedful.functional.losses.ppo import kl_loss, policy_loss
from heedful.functional.masking import token_weights

# Both sides are float64 and the frozen numbers have 12 decimals, but token_weights gives float32: 1e-7 of numbers up to 5.
CLOSE = 5e-7
# Without such weights.
EXACT = 1e-11

WIDTH = 6
Rows = list[list[float]]
Average = Literal["token", "sequence", "constant"]

OLD = [[-0.85, -2.4, -1.9, -0.7, -1.1], [-1.6, -2.3, -2.9], [-3.1], [-0.4, -1.3, -2.2, -0.6]]
# Ratios of 1.05, 1.246 (between both clips), 1.65, 0.67, 1 for the first answer; 0.74, 1.35, 3.67 and 3.32 where the advantage
# is negative (below the lower clip, above the upper, beyond the second clip of 3); 1.11, 0.9, 1.31, 0.98 for the last.
NEW = [[-0.8, -2.18, -1.4, -1.1, -1.1], [-1.9, -2.0, -1.6], [-1.9], [-0.3, -1.4, -1.93, -0.62]]
REFERENCE = [[-0.9, -2.0, -1.7, -0.95, -1.6], [-1.4, -2.6, -1.5], [-2.2], [-0.35, -1.0, -2.4, -0.9]]
ADVANTAGES = [1.25, -0.5, -1.5, 0.75]
NUM_TOKENS = 13


def padded(rows: Rows, filler: float = 0.0) -> Tensor:
    return torch.tensor([row + [filler] * (WIDTH - len(row)) for row in rows], dtype=torch.float64)


MASK_BT = torch.tensor([[t < len(row) for t in range(WIDTH)] for row in OLD])


def losses(average: Average, new_BT: Tensor, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The clipped loss as training/policy_update.py composes it, the tokens' weights, and how many were clipped."""
    weights_BT = token_weights(MASK_BT, average, max_tokens=8)
    advantages_BT = torch.tensor(ADVANTAGES, dtype=torch.float64)[:, None] * weights_BT
    found = policy_loss(new_BT, padded(OLD, -6.5), advantages_BT, MASK_BT, num_tokens=NUM_TOKENS, **settings)
    return found.loss, weights_BT, found.clipped_tokens


# average, settings, TRL's loss, its gradient, tokens clipped (its clip_ratio/region_mean times 13).
CLIPPED = [
    pytest.param(
        "sequence",
        {"clip": 0.2},
        0.9709932575254594,
        [
            [-0.065704443524, 0.0, 0.0, -0.041895002877, -0.0625],
            [0.0, 0.056244116982, 0.152887361151],
            [1.245043846026],
            [-0.051804886785, -0.04241425397, 0.0, -0.045946812811],
        ],
        4,
        id="grpo",
    ),
    pytest.param(
        "constant",
        {"clip": 0.2},
        -0.05171534573049706,
        [
            [-0.041065277202, 0.0, 0.0, -0.026184376798, -0.0390625],
            [0.0, 0.021091543868, 0.057332760432],
            [0.155630480753],
            [-0.025902443392, -0.021207126985, 0.0, -0.022973406406],
        ],
        4,
        id="dr_grpo",
    ),
    # bnpo gives the same: the two differ in what is counted over several accumulation steps.
    pytest.param(
        "token",
        {"clip": 0.2},
        -0.1272993125673774,
        [
            [-0.101083759267, 0.0, 0.0, -0.06445385058, -0.096153846154],
            [0.0, 0.051917646445, 0.141126794908],
            [0.383090414162],
            [-0.063759860658, -0.052202158733, 0.0, -0.05654992346],
        ],
        4,
        id="dapo",
    ),
    pytest.param(
        "token",
        {"clip": 0.2, "clip_high": 0.28},
        -0.14403745973924087,
        [
            [-0.101083759267, -0.119815070249, 0.0, -0.06445385058, -0.096153846154],
            [0.0, 0.051917646445, 0.141126794908],
            [0.383090414162],
            [-0.063759860658, -0.052202158733, 0.0, -0.05654992346],
        ],
        3,
        id="dapo, epsilon_high 0.28",
    ),
    # TRL's delta bounds the ratio, ours the term: for a delta beyond 1 + epsilon_high the two are one.
    pytest.param(
        "sequence",
        {"clip": 0.2, "clip_high": 0.28, "dual_clip": 3.0},
        0.8114322546867407,
        [
            [-0.065704443524, -0.077879795662, 0.0, -0.041895002877, -0.0625],
            [0.0, 0.056244116982, 0.0],
            [0.0],
            [-0.051804886785, -0.04241425397, 0.0, -0.045946812811],
        ],
        3,
        id="grpo, epsilon_high 0.28, delta 3",
    ),
]


@pytest.mark.parametrize(("average", "settings", "loss", "gradient", "clipped"), CLIPPED)
def test_the_clipped_loss_equals_trl(
    average: Average, settings: dict[str, float], loss: float, gradient: Rows, clipped: int
) -> None:
    new_BT = padded(NEW, -7.0).requires_grad_()
    found, _, found_clipped = losses(average, new_BT, **settings)
    found.backward()
    assert found.item() == pytest.approx(loss, abs=CLOSE)
    assert new_BT.grad is not None
    torch.testing.assert_close(new_BT.grad, padded(gradient), atol=CLOSE, rtol=0)
    assert found_clipped.item() == clipped


# The KL term. TRL's loss adds beta times k3; heedful's adds beta times k2, for its gradient is the KL's (docs/methods/grpo.md,
# "Where it differs"). So what is compared is (1) the sum with k3 from sampled_kl in the same place and under the same weights,
# (2) heedful's own sum, with k2, and TRL's `use_bias_correction_kl`, which multiplies k3 with the ratio: where old and new
# log-probs are equal, the gradient of that is k2's, exactly.

K3 = [
    pytest.param(
        "sequence",
        0.976841435262072,
        [
            [-0.065228630614, -0.000986086816, 0.001295908897, -0.042704174091, -0.060532653299],
            [-0.005406010589, 0.060004020015, 0.152010936834],
            [1.251523390509],
            [-0.051500070688, -0.045488158331, 0.002343735823, -0.044420461195],
        ],
        id="grpo",
    ),
    pytest.param(
        "constant",
        -0.049375970475146,
        [
            [-0.040767894134, -0.00061630426, 0.00080994306, -0.026690108807, -0.037832908312],
            [-0.002027253971, 0.022501507506, 0.057004101313],
            [0.156440423814],
            [-0.025750035344, -0.022744079165, 0.001171867912, -0.022210230598],
        ],
        id="dr_grpo",
    ),
    pytest.param(
        "token",
        -0.12154085040035938,
        [
            [-0.100351739406, -0.001517056639, 0.001993705995, -0.065698729371, -0.093127158921],
            [-0.004990163621, 0.055388326168, 0.140317787846],
            [0.385084120157],
            [-0.063384702385, -0.055985425638, 0.002884597936, -0.054671336856],
        ],
        id="dapo",
    ),
]


@pytest.mark.parametrize(("average", "loss", "gradient"), K3)
def test_the_loss_with_k3_equals_trl(average: Average, loss: float, gradient: Rows) -> None:
    """TRL with beta 0.1 and epsilon 0.2."""
    new_BT = padded(NEW, -7.0).requires_grad_()
    clipped, weights_BT, _ = losses(average, new_BT, clip=0.2)
    k3_BT = sampled_kl(new_BT, padded(REFERENCE, -6.8), "k3")
    found = clipped + 0.1 * (weights_BT * k3_BT).sum() / NUM_TOKENS
    found.backward()
    assert found.item() == pytest.approx(loss, abs=CLOSE)
    assert new_BT.grad is not None
    torch.testing.assert_close(new_BT.grad, padded(gradient), atol=CLOSE, rtol=0)


ON_POLICY = [
    pytest.param(
        "sequence",
        [
            [-0.06225, -0.0645, -0.0635, -0.06125, -0.06],
            [0.04, 0.044166666667, 0.03],
            [0.3525],
            [-0.0471875, -0.04875, -0.045625, -0.045],
        ],
        id="grpo",
    ),
    pytest.param(
        "constant",
        [
            [-0.03890625, -0.0403125, -0.0396875, -0.03828125, -0.0375],
            [0.015, 0.0165625, 0.01125],
            [0.0440625],
            [-0.02359375, -0.024375, -0.0228125, -0.0225],
        ],
        id="dr_grpo",
    ),
    pytest.param(
        "token",
        [
            [-0.095769230769, -0.099230769231, -0.097692307692, -0.094230769231, -0.092307692308],
            [0.036923076923, 0.040769230769, 0.027692307692],
            [0.108461538462],
            [-0.058076923077, -0.06, -0.056153846154, -0.055384615385],
        ],
        id="dapo",
    ),
]


@pytest.mark.parametrize(("average", "gradient"), ON_POLICY)
def test_the_gradient_with_k2_equals_trls_bias_corrected_kl_on_policy(average: Average, gradient: Rows) -> None:
    """TRL with beta 0.1 and use_bias_correction_kl; the log-probs are OLD, so all ratios are 1. The values differ."""
    new_BT = padded(OLD, -6.5).requires_grad_()
    clipped, weights_BT, _ = losses(average, new_BT, clip=0.2)
    kl = kl_loss(new_BT, padded(REFERENCE, -6.8), MASK_BT, weights_BT, num_tokens=NUM_TOKENS)
    (clipped + 0.1 * kl).backward()
    assert new_BT.grad is not None
    torch.testing.assert_close(new_BT.grad, padded(gradient), atol=CLOSE, rtol=0)


# Advantages: four answers to each of four prompts. The second group is of one reward, the last nearly so.
REWARDS = [1.5, -0.25, 0.75, 2.0, 0.1, 0.1, 0.1, 0.1, -3.0, 4.0, 4.5, 0.5, 0.70, 0.70, 0.71, 0.70]
GROUP = [0.5107017498712674, -1.2767543746781687, -0.2553508749356337, 1.0214034997425347]
GROUP += [0.0, 0.0, 0.0, 0.0]
GROUP += [-1.2900729176912047, 0.7167071764951137, 0.8600486117941365, -0.2866828705980455]
GROUP += [-0.49019607843136165, -0.49019607843136165, 1.4705882352941284, -0.49019607843136165]
NONE = [0.5, -1.25, -0.25, 1.0, 0.0, 0.0, 0.0, 0.0, -4.5, 2.5, 3.0, -1.0, -0.0025, -0.0025, 0.0075, -0.0025]


@pytest.mark.parametrize(("scale", "expected"), [(True, GROUP), (False, NONE)], ids=["group", "none"])
def test_advantages_equal_trl(scale: bool, expected: list[float]) -> None:
    """TRL's scale_rewards "group" and "none"; it adds 1e-4 to the deviation, heedful 1e-6 unless told otherwise."""
    rewards_B, groups_B = torch.tensor(REWARDS, dtype=torch.float64), torch.arange(16) // 4
    found = group_advantages(rewards_B, groups_B, scale=scale, eps=1e-4)
    assert found.tolist() == pytest.approx(expected, abs=EXACT)
    assert equal_groups(rewards_B, groups_B).tolist() == [value == 0.0 for value in expected]
    # The default differs where the deviation is small only: 1e-4 of the last group's 0.005 is 2%, of the others' 1e-4.
    plain = group_advantages(rewards_B, groups_B, scale=scale)
    assert plain[:12].tolist() == pytest.approx(expected[:12], abs=2e-4)
    assert plain[12:].tolist() == pytest.approx([(1.02 / 1.0002 if scale else 1) * value for value in expected[12:]], abs=1e-9)
    # A mixed order of answers, as heedful allows.
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    mixed = group_advantages(rewards_B[order], groups_B[order], scale=scale, eps=1e-4)
    torch.testing.assert_close(mixed, found[order], atol=EXACT, rtol=0)
