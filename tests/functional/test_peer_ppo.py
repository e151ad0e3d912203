"""The pieces of PPO against TRL's PPOTrainer, frozen: KL, token rewards, GAE, whitening, and both losses with gradients.

TRL 1.12.0, the last with PPO (torch 2.13.0, float64). Its PPO is one long `train`, so lines of
trl/experimental/ppo/ppo_trainer.py were executed as they stand on the tensors below, with their settings in a bare namespace:
727 (`sequence_length`) and 757 to 798 (penalty, KL, rewards, GAE, whitening) on what was sampled; 824 to 826, 828 to 847 and
852 to 854 (value loss, policy loss, their sum, share clipped) with leaves for new log-probs and values. `masked_mean` and
`masked_whiten` of the same file were called. Pad id 0, end-of-text id 2, cliprange and cliprange_value 0.2, vf_coef 0.1,
kl_coef 0.1.

What differs by design (docs/methods/ppo.md, "Where it differs"): where a response is shorter than the longest one, TRL pays its
score one place late, on the padding behind the last token, with a value of its own there; heedful pays it on the last token. So
responses that fill their width are compared as they are, and the others in two ways: under a mask that is longer by that place,
and, at gamma = lambda = 1, where the place makes no difference to the tokens' advantages, under heedful's own mask.
"""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from heedful.functional.advantages import gae, sampled_kl, token_rewards
from heedful.functional.losses.ppo import policy_loss, value_loss
from heedful.functional.masking import masked_mean, whiten

# Float64 on both sides, frozen numbers of 12 decimals.
EXACT = 1e-11

Rows = list[list[float]]


def tensor(rows: Rows | list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def first(lengths: list[int], width: int) -> Tensor:
    """True on the first so many places of each row."""
    return torch.tensor([[t < n for t in range(width)] for n in lengths])


def equal(found: Tensor, frozen: Rows, mask_BT: Tensor) -> None:
    """Equal where the mask is True, zero elsewhere."""
    torch.testing.assert_close(found, torch.where(mask_BT, tensor(frozen), 0.0), atol=EXACT, rtol=0)


# Three responses of four tokens. The first ends with the end of text, the others were cut off.
FULL_POLICY = tensor([[-0.8, -2.18, -1.4, -0.3], [-1.9, -2.0, -1.6, -0.7], [-0.3, -1.4, -1.93, -0.62]])
FULL_REFERENCE = tensor([[-0.9, -2.0, -1.7, -0.95], [-1.4, -2.6, -1.5, -1.1], [-0.35, -1.0, -2.4, -0.9]])
FULL_VALUES = tensor([[0.4, 0.1, -0.3, 0.8], [0.2, -0.6, 0.5, 0.9], [-0.1, 0.7, 0.3, -0.4]])
FULL_MASK = first([4, 4, 4], 4)
# TRL's, with k1, gamma 1 and lambda 0.95.
FULL_RETURNS = [
    [1.237208125, 1.3075875, 1.37325, 1.435],
    [-0.21225125, -0.244475, -0.2205, -0.29],
    [0.64080725, 0.642955, 0.6189, 0.722],
]
FULL_ADVANTAGES = [
    [0.547468270816, 0.986999429445, 1.539603575275, 0.307506821922],
    [-0.935271762301, -0.024147635235, -1.301072180409, -1.858230307738],
    [0.433068843792, -0.513746631171, -0.067610715988, 0.88543229159],
]

# kl_estimator, gamma, lam, scores after TRL's penalty, then TRL's KL, rewards, returns and whitened advantages.
FULL = [
    pytest.param(
        "k1",
        1.0,
        0.95,
        [1.5, -0.25, 0.75],
        [[0.1, -0.18, 0.3, 0.65], [-0.5, 0.6, -0.1, 0.4], [0.05, -0.4, 0.47, 0.28]],
        [[-0.01, 0.018, -0.03, 1.435], [0.05, -0.06, 0.01, -0.29], [-0.005, 0.04, -0.047, 0.722]],
        FULL_RETURNS,
        FULL_ADVANTAGES,
        id="k1",
    ),
    pytest.param(
        "k3",
        0.9,
        0.8,
        [1.5, -1.25, -0.25],
        [
            [0.004837418036, 0.017217363122, 0.040818220682, 0.172045776761],
            [0.1487212707, 0.148811636094, 0.005170918076, 0.070320046036],
            [0.001229424501, 0.091824697641, 0.095002268283, 0.035783741456],
        ],
        [
            [-0.000483741804, -0.001721736312, -0.004081822068, 1.482795422324],
            [-0.01487212707, -0.014881163609, -0.000517091808, -1.257032004604],
            [-0.00012294245, -0.009182469764, -0.009500226828, -0.253578374146],
        ],
        [
            [0.603380617283, 0.813700498731, 1.207530882005, 1.482795422324],
            [-0.454258506916, -0.460258860897, -0.743580135122, -1.257032004604],
            [0.021248340739, -0.145317662238, -0.264076656213, -0.253578374146],
        ],
        [
            [0.371124593778, 0.888823895849, 1.694133370012, 0.85747192022],
            [-0.498916320104, 0.306564864408, -1.0967597644, -2.023420497202],
            [0.287804653109, -0.692738263869, -0.407430405355, 0.313341953553],
        ],
        id="k3, missing_eos_penalty 1, discounted",
    ),
]


@pytest.mark.parametrize(("kind", "gamma", "lam", "scores", "kl", "rewards", "returns", "advantages"), FULL)
def test_full_responses_equal_trl_from_log_probs_to_advantages(
    kind: Literal["k1", "k3"],
    gamma: float,
    lam: float,
    scores: list[float],
    kl: Rows,
    rewards: Rows,
    returns: Rows,
    advantages: Rows,
) -> None:
    kl_BT = sampled_kl(FULL_POLICY, FULL_REFERENCE, kind)
    equal(kl_BT, kl, FULL_MASK)
    rewards_BT = token_rewards(tensor(scores), kl_BT, FULL_MASK, kl_coef=0.1)
    equal(rewards_BT, rewards, FULL_MASK)
    found = gae(rewards_BT, FULL_VALUES, FULL_MASK, gamma=gamma, lam=lam)
    equal(found.returns_BT, returns, FULL_MASK)
    equal(whiten(found.advantages_BT, FULL_MASK), advantages, FULL_MASK)


# Four responses of 5, 3, 1 and 4 tokens in 6 places. What lies in the padding is not zero.
LENGTHS = [5, 3, 1, 4]
MASK = first(LENGTHS, 6)
LONGER = first([n + 1 for n in LENGTHS], 6)  # with the place behind the last token, where TRL pays
POLICY = tensor(
    [
        [-0.8, -2.18, -1.4, -1.1, -1.1, -3.0],
        [-1.9, -2.0, -1.6, -2.5, -1.2, -0.8],
        [-1.9, -0.2, -0.4, -1.0, -2.0, -3.0],
        [-0.3, -1.4, -1.93, -0.62, -0.5, -0.6],
    ]
)
REFERENCE = tensor(
    [
        [-0.9, -2.0, -1.7, -0.95, -1.6, -1.5],
        [-1.4, -2.6, -1.5, -1.1, -0.2, -0.3],
        [-2.2, -1.0, -1.1, -1.2, -1.3, -1.4],
        [-0.35, -1.0, -2.4, -0.9, -2.5, -2.6],
    ]
)
VALUES = tensor(
    [
        [0.4, 0.1, -0.3, 0.8, 0.6, 1.1],
        [0.2, -0.6, 0.5, 0.9, 1.3, -1.4],
        [-0.1, 0.7, 0.3, -0.4, 1.5, 1.6],
        [0.9, -0.8, 0.15, 0.35, -0.45, 1.7],
    ]
)
SCORES = tensor([1.5, -0.25, 0.75, 2.0])
# TRL's, with k1, gamma 0.9 and lambda 0.8.
REWARDS = [
    [-0.01, 0.018, -0.03, 0.015, -0.05, 1.5],
    [0.05, -0.06, 0.01, -0.25, 0.0, 0.0],
    [-0.03, 0.75, 0.0, 0.0, 0.0, 0.0],
    [-0.005, 0.04, -0.047, -0.028, 2.0, 0.0],
]
RETURNS = [
    [0.41709805568, 0.568191744, 0.8391552, 1.00716, 1.228, 1.5],
    [-0.0405472, 0.02424, -0.008, -0.25, 0.0, 0.0],
    [0.636, 0.75, 0.0, 0.0, 0.0, 0.0],
    [0.404327488, 0.7685104, 0.97432, 1.331, 2.0, 0.0],
]
ADVANTAGES = [
    [-0.694639568052, 0.016620971503, 1.074560468538, -0.394960001332, 0.268598131307, 0.0],
    [-1.100880906191, 0.262669563255, -1.522586258669, 0.0, 0.0, 0.0],
    [0.4388867881, 0.0, 0.0, 0.0, 0.0, 0.0],
    [-1.50314893114, 1.751544915717, 0.578145067434, 0.82518975953, 0.0, 0.0],
]


def test_short_responses_equal_trl_under_its_longer_mask() -> None:
    kl_BT = torch.where(MASK, sampled_kl(POLICY, REFERENCE, "k1"), 0.0)
    rewards_BT = token_rewards(SCORES, kl_BT, LONGER, kl_coef=0.1)
    equal(rewards_BT, REWARDS, LONGER)
    found = gae(rewards_BT, VALUES, LONGER, gamma=0.9, lam=0.8)
    equal(found.returns_BT, RETURNS, LONGER)
    equal(whiten(found.advantages_BT, MASK), ADVANTAGES, MASK)


# TRL's, at gamma = lambda = 1: whitened advantages, and returns on response tokens.
UNDISCOUNTED: list[tuple[Literal["k1", "k3"], Rows, Rows]] = [
    (
        "k1",
        [
            [1.443, 1.453, 1.435, 1.465, 1.45, 0.0],
            [-0.25, -0.3, -0.24, 0.0, 0.0, 0.0],
            [0.72, 0.0, 0.0, 0.0, 0.0, 0.0],
            [1.96, 1.965, 1.925, 1.972, 0.0, 0.0],
        ],
        [
            [0.062410770018, 0.392917213082, 0.800186442922, -0.340593860557, -0.143356144535, 0.0],
            [-1.529350905771, -0.72973854352, -1.838534352509, 0.0, 0.0, 0.0],
            [-0.175340639025, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.080535316896, 1.898320753748, 0.842832435575, 0.679711513676, 0.0, 0.0],
        ],
    ),
    (
        "k3",
        [
            [1.481876209572, 1.482359951376, 1.484081687688, 1.488163509756, 1.489346934029, 0.0],
            [-0.280270382487, -0.265398255417, -0.250517091808, 0.0, 0.0, 0.0],
            [0.745918177932, 0.0, 0.0, 0.0, 0.0, 0.0],
            [1.977615986812, 1.977738929262, 1.986921399026, 1.996421625854, 0.0, 0.0],
        ],
        [
            [0.076746722707, 0.392276394176, 0.814113285317, -0.336680100591, -0.125422947758, 0.0],
            [-1.56362023366, -0.707945537249, -1.847398833114, 0.0, 0.0, 0.0],
            [-0.171026284103, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.072273180545, 1.857525288594, 0.869598805629, 0.669560259506, 0.0, 0.0],
        ],
    ),
]


@pytest.mark.parametrize(("kind", "returns", "advantages"), UNDISCOUNTED)
def test_short_responses_equal_trl_where_nothing_is_discounted(
    kind: Literal["k1", "k3"], returns: Rows, advantages: Rows
) -> None:
    rewards_BT = token_rewards(SCORES, sampled_kl(POLICY, REFERENCE, kind), MASK, kl_coef=0.1)
    found = gae(rewards_BT, VALUES, MASK, gamma=1.0, lam=1.0)
    equal(found.returns_BT, returns, MASK)
    equal(whiten(found.advantages_BT, MASK), advantages, MASK)


def test_rewards_whitened_without_a_shift_equal_trl() -> None:
    """TRL's whiten_rewards, of REWARDS above."""
    frozen = [
        [-0.160268883883, -0.114577073661, -0.192905891184, -0.119472624756, -0.225542898486, 2.303825167384],
        [-0.062357861978, -0.241861402137, -0.127631876581, -0.551912971501, 0.0, 0.0],
        [-0.192905891184, 1.079937393576, 0.0, 0.0, 0.0, 0.0],
        [-0.152109632057, -0.078676365629, -0.220647347391, -0.189642190454, 3.119750349922, 0.0],
    ]
    equal(whiten(tensor(REWARDS), LONGER, shift_mean=False), frozen, LONGER)


WHITENED = [
    (
        True,
        [[0.619879402156, -1.584136249953, 0.344377445642, 0.0], [1.170883315183], [0.206626467385, -0.757630380412]],
        [[-0.309412569772, -0.154148661441, 0.019935119847], [0.409401833558], [-0.531696122278, 0.565920400086]],
    ),
    (
        False,
        [[0.494879402156, -1.709136249953, 0.219377445642], [1.045883315183], [0.081626467385, -0.882630380412]],
        [[0.107254096895, 0.262518005225, 0.436601786514], [0.826068500225], [-0.115029455612, 0.982587066752]],
    ),
]


@pytest.mark.parametrize(("shift_mean", "whitened", "gradient"), WHITENED)
def test_means_and_whitening_equal_trl(shift_mean: bool, whitened: Rows, gradient: Rows) -> None:
    """`gradient`: of the sum of 0.3, -1, 0.7; 2; -0.4, 0.9 times the whitened numbers."""

    def padded(rows: Rows) -> Tensor:
        return tensor([(row + [0.0] * 4)[:4] for row in rows])

    values_BT = tensor([[1.0, -3.0, 0.5, 7.0], [2.0, 9.0, 9.0, 9.0], [0.25, -1.5, 9.0, 9.0]]).requires_grad_()
    mask_BT = first([3, 1, 2], 4)
    assert masked_mean(values_BT, mask_BT).item() == pytest.approx(-0.125, abs=EXACT)
    found = whiten(values_BT, mask_BT, shift_mean=shift_mean)
    (found * padded([[0.3, -1.0, 0.7], [2.0], [-0.4, 0.9]])).sum().backward()
    torch.testing.assert_close(found.detach(), padded(whitened), atol=EXACT, rtol=0)
    torch.testing.assert_close(values_BT.grad, padded(gradient), atol=EXACT, rtol=0)


# The losses, on TRL's own advantages and returns.


def test_the_losses_of_full_responses_equal_trl() -> None:
    """TRL minimises policy loss + 0.1 value loss; both lie on the same tokens here."""
    new_BT = tensor([[-0.75, -1.96, -1.9, -1.1], [-2.2, -1.9, -0.3, -9.0], [-0.2, -1.5, -1.66, -0.64]]).requires_grad_()
    values_BT = tensor([[0.7, 0.2, -0.9, 0.75], [0.25, -0.1, 1.9, 0.4], [0.95, -0.3, -0.5, 1.6]]).requires_grad_()
    policy = policy_loss(new_BT, FULL_POLICY, tensor(FULL_ADVANTAGES), FULL_MASK, clip=0.2, num_tokens=12)
    value = value_loss(values_BT, FULL_VALUES, tensor(FULL_RETURNS), FULL_MASK, clip=0.2, num_tokens=12)
    whole = policy.loss + 0.1 * value
    whole.backward()
    assert policy.loss.item() == pytest.approx(0.2842077931712091, abs=EXACT)
    assert value.item() == pytest.approx(0.6778257143604746, abs=EXACT)
    assert whole.item() == pytest.approx(0.3519903646072565, abs=EXACT)
    assert policy.clipped_tokens.item() == 3  # pg_clipfrac 0.25
    by_logprob = [
        [-0.047961464108, 0.0, -0.077818064351, -0.011514310146],
        [0.0, 0.002223938683, 0.397834984659, 0.0],
        [-0.039884590974, 0.038738097939, 0.007380636203, -0.072324963127],
    ]
    by_value = [
        [0.0, -0.009229895833, -0.01894375, -0.005708333333],
        [0.00385209375, 0.0, 0.017670833333, 0.0],
        [0.0, -0.007857958333, -0.009324166667, 0.0],
    ]
    torch.testing.assert_close(new_BT.grad, tensor(by_logprob), atol=EXACT, rtol=0)
    torch.testing.assert_close(values_BT.grad, tensor(by_value), atol=EXACT, rtol=0)


def test_the_losses_of_short_responses_equal_trl() -> None:
    """REWARDS' own advantages and returns. TRL's value loss is a mean over the longer mask, its policy loss over the tokens."""
    new_BT = tensor(
        [
            [-0.75, -1.96, -1.9, -1.1, -0.6, -9.0],
            [-2.2, -1.9, -0.3, -9.0, -9.0, -9.0],
            [-0.7, -9.0, -9.0, -9.0, -9.0, -9.0],
            [-0.2, -1.5, -1.66, -0.64, -9.0, -9.0],
        ]
    ).requires_grad_()
    values_BT = tensor(
        [
            [0.7, 0.2, -0.9, 0.75, 1.9, 0.3],
            [0.25, -0.1, 1.9, 0.4, 9.0, 9.0],
            [-1.1, 0.9, 9.0, 9.0, 9.0, 9.0],
            [0.95, -0.3, -0.5, 1.6, -0.2, 9.0],
        ]
    ).requires_grad_()
    policy = policy_loss(new_BT, POLICY, tensor(ADVANTAGES), MASK, clip=0.2, num_tokens=13)
    value = value_loss(values_BT, VALUES, tensor(RETURNS), LONGER, clip=0.2, num_tokens=17)
    (policy.loss + 0.1 * value).backward()
    assert policy.loss.item() == pytest.approx(0.3350394866930154, abs=EXACT)
    assert value.item() == pytest.approx(0.6781821078360363, abs=EXACT)
    assert policy.clipped_tokens.item() == 5  # pg_clipfrac 0.3846
    by_logprob = [
        [0.056173423099, 0.0, -0.050134913068, 0.030381538564, 0.0, 0.0],
        [0.0, -0.022330366336, 0.429755437315, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.127787421864, -0.121912567624, 0.0, -0.062219223655, 0.0, 0.0],
    ]
    by_value = [
        [0.001664129084, -0.002165833788, -0.010230324706, -0.001512705882, 0.003952941176, -0.007058823529],
        [0.001709101176, 0.0, 0.011223529412, 0.0, 0.0, 0.0],
        [-0.010211764706, 0.000882352941, 0.0, 0.0, 0.0, 0.0],
        [0.003209838306, 0.0, -0.008672470588, 0.0, 0.0, 0.0],
    ]
    torch.testing.assert_close(new_BT.grad, tensor(by_logprob), atol=EXACT, rtol=0)
    torch.testing.assert_close(values_BT.grad, tensor(by_value), atol=EXACT, rtol=0)
