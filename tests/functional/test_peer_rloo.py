"""RLOO against TRL's RLOOTrainer: leave-one-out advantages with the KL in the reward, losses and gradients, frozen.

TRL 1.16.0 (torch 2.13.0, float64). How the numbers were made: lines 1656 to 1699 of trl/trainer/rloo_trainer.py (within
`_generate_and_score_completions`) were executed on these scores and log-probs, with one reward function of weight 1, no
clipping of rewards and no normalising; RLOOTrainer._compute_loss was called unbound on a bare namespace holding its settings,
the model replaced by a leaf of these log-probs, 6 places wide with -7.0 as padding. Gradients are by that leaf.

What differs by design (docs/methods/rloo.md, "Where it differs"): TRL's ratio is that of a whole answer and its loss the mean
over answers; `heedful align rloo` takes a ratio a token and the mean over tokens. `policy_loss` serves both: with a whole
answer as its one "token" it is TRL's loss, and where nothing has moved both gradients are one but for what they are divided by.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heedful.functional.advantages import leave_one_out, sampled_kl
from heedful.functional.logprobs import sequence_logprobs
from heedful.functional.losses.ppo import policy_loss

# Float64 on both sides, frozen numbers of 12 decimals.
EXACT = 1e-11

WIDTH = 6
Rows = list[list[float]]

OLD = [[-0.85, -2.4, -1.9, -0.7, -1.1], [-1.6, -2.3, -2.9], [-3.1], [-0.4, -1.3, -2.2, -0.6], [-1.2, -0.3], [-2.0, -1.5, -0.8]]
# Ratios of whole answers: 1.246 (between the clips of 0.2 and 0.28), 0.861, 1.492, 1.462 (beyond both), 1.649, 0.638 (below).
NEW = [
    [-0.8, -2.38, -1.84, -0.61, -1.1],
    [-1.9, -2.2, -2.85],
    [-2.7],
    [-0.3, -1.2, -2.0, -0.62],
    [-0.9, -0.1],
    [-2.2, -1.8, -0.75],
]
REFERENCE = [
    [-0.9, -2.0, -1.7, -0.95, -1.6],
    [-1.4, -2.6, -1.5],
    [-2.2],
    [-0.35, -1.0, -2.4, -0.9],
    [-1.9, -0.2],
    [-2.1, -1.9, -1.4],
]
SCORES = [1.5, -0.25, 0.75, 2.0, -1.0, 0.5]
ADVANTAGES = [1.25, -0.5, -1.5, 0.75, -0.8, -0.6]


def padded(rows: Rows, filler: float) -> Tensor:
    return torch.tensor([row + [filler] * (WIDTH - len(row)) for row in rows], dtype=torch.float64)


MASK_BT = torch.tensor([[t < len(row) for t in range(WIDTH)] for row in OLD])
LENGTHS = [len(row) for row in OLD]


@pytest.mark.parametrize(
    ("group", "kl_coef", "expected"),
    [
        (2, 0.0, [1.75, -1.75, -1.25, 1.25, -1.5, 1.5]),
        (2, 0.2, [1.45, -1.45, -1.04, 1.04, -1.4, 1.4]),
        (3, 0.0, [1.25, -1.375, 0.125, 2.25, -2.25, 0.0]),
        (3, 0.2, [0.99, -1.185, 0.195, 2.39, -2.245, -0.145]),
    ],
)
def test_advantages_equal_trl(group: int, kl_coef: float, expected: list[float]) -> None:
    """TRL's num_generations and beta; its KL is k1 summed over the answer, which `kl = "k1"` is here."""
    k1_BT = sampled_kl(padded(OLD, -6.5), padded(REFERENCE, -6.8), "k1")
    totals_B = torch.tensor(SCORES, dtype=torch.float64) - kl_coef * sequence_logprobs(k1_BT, MASK_BT)
    assert leave_one_out(totals_B, torch.arange(6) // group).tolist() == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize(
    ("new", "clip_high", "loss", "gradient", "clipped"),
    [
        (NEW, 0.2, 0.3445113418724228, [0.0, 0.071725664702, 0.37295617441, 0.0, 0.21982950276, 0.0], 3),
        (NEW, 0.28, 0.3249120230000519, [-0.259599318872, 0.071725664702, 0.37295617441, 0.0, 0.21982950276, 0.0], 2),
        (OLD, 0.2, 0.2333333333333333, [-0.208333333333, 0.083333333333, 0.25, -0.125, 0.133333333333, 0.1], 0),
    ],
    ids=["clipped", "epsilon_high 0.28", "on policy"],
)
def test_the_loss_of_whole_answers_equals_trl(
    new: Rows, clip_high: float, loss: float, gradient: list[float], clipped: int
) -> None:
    """`gradient` is the same at every token of an answer; clipped: TRL's clip_ratio/region_mean times 6."""
    new_BT = padded(new, -7.0).requires_grad_()
    old_B = sequence_logprobs(padded(OLD, -6.5), MASK_BT)
    found = policy_loss(
        sequence_logprobs(new_BT, MASK_BT)[:, None],
        old_B[:, None],
        torch.tensor(ADVANTAGES, dtype=torch.float64)[:, None],
        torch.ones(6, 1, dtype=torch.bool),
        clip=0.2,
        clip_high=clip_high,
        num_tokens=6,
    )
    found.loss.backward()
    assert found.loss.item() == pytest.approx(loss, abs=EXACT)
    assert found.clipped_tokens.item() == clipped
    assert new_BT.grad is not None
    expected = padded([[slope] * n for slope, n in zip(gradient, LENGTHS, strict=True)], 0.0)
    torch.testing.assert_close(new_BT.grad, expected, atol=EXACT, rtol=0)


def test_where_nothing_has_moved_a_ratio_a_token_has_the_same_gradient() -> None:
    """The numbers of "on policy" above: divided by the 6 answers, token ratios pull as TRL's ratio of the whole does."""
    new_BT = padded(OLD, -7.0).requires_grad_()
    advantages_BT = torch.tensor(ADVANTAGES, dtype=torch.float64)[:, None].expand(6, WIDTH)
    found = policy_loss(new_BT, padded(OLD, -6.5), advantages_BT, MASK_BT, clip=0.2, num_tokens=6)
    found.loss.backward()
    # The value is another: 5 * 1.25 - 3 * 0.5 - 1.5 + 4 * 0.75 - 2 * 0.8 - 3 * 0.6 = 2.85, over 6. Advantages fill the padding.
    assert found.loss.item() == pytest.approx(-0.475, abs=EXACT)
    frozen = [-0.208333333333, 0.083333333333, 0.25, -0.125, 0.133333333333, 0.1]
    expected = padded([[slope] * n for slope, n in zip(frozen, LENGTHS, strict=True)], 0.0)
    torch.testing.assert_close(new_BT.grad, expected, atol=EXACT, rtol=0)
