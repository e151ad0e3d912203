"""The reward model's loss with centring and margins against TRL's RewardTrainer, frozen; and centring against a slow loop.

TRL 1.16.0 (torch 2.13.0, float64). How the numbers were made: RewardTrainer.compute_loss was called unbound on a bare namespace
holding `center_rewards_coefficient`, the model replaced by one whose logits are a leaf of these rewards, chosen ones first.
`gradient` is by that leaf: chosen, then rejected.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.functional.losses.pairwise import centring_loss, pairwise_loss

# Float64 on both sides, frozen numbers of 12 decimals.
EXACT = 1e-11

CHOSEN = [1.5, -0.25, 3.0, 0.4, -2.1]
REJECTED = [0.5, 0.75, 2.9, -1.6, -2.0]
MARGIN = [0.0, 0.5, 1.0, 0.25, 2.0]


@pytest.mark.parametrize(
    ("coefficient", "margin", "loss", "gradient"),
    [
        pytest.param(
            0.0,
            None,
            0.628448941245312,
            [
                [-0.053788284274, -0.146211715726, -0.095004162504, -0.023840584404, -0.104995837496],
                [0.053788284274, 0.146211715726, 0.095004162504, 0.023840584404, 0.104995837496],
            ],
            id="pairwise",
        ),
        pytest.param(
            0.0,
            MARGIN,
            1.1263145027701813,
            [
                [-0.053788284274, -0.163514895239, -0.142189900525, -0.029609439606, -0.178180635761],
                [0.053788284274, 0.163514895239, 0.142189900525, 0.029609439606, 0.178180635761],
            ],
            id="margins",
        ),
        pytest.param(
            0.01,
            None,
            0.743068941245312,
            [
                [-0.045788284274, -0.144211715726, -0.071404162504, -0.028640584404, -0.121395837496],
                [0.061788284274, 0.148211715726, 0.118604162504, 0.019040584404, 0.088595837496],
            ],
            id="centring 0.01",
        ),
        pytest.param(
            0.5,
            MARGIN,
            6.857314502770182,
            [
                [0.346211715726, -0.063514895239, 1.037810099475, -0.269609439606, -0.998180635761],
                [0.453788284274, 0.263514895239, 1.322189900525, -0.210390560394, -0.641819364239],
            ],
            id="margins, centring 0.5",
        ),
    ],
)
def test_equals_trl(coefficient: float, margin: list[float] | None, loss: float, gradient: list[list[float]]) -> None:
    chosen_P, rejected_P = (torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in (CHOSEN, REJECTED))
    margin_P = None if margin is None else torch.tensor(margin, dtype=torch.float64)
    found = pairwise_loss(chosen_P, rejected_P, torch.ones(5), margin_P) + coefficient * centring_loss(chosen_P, rejected_P)
    found.backward()
    assert found.item() == pytest.approx(loss, abs=EXACT)
    assert chosen_P.grad is not None
    assert rejected_P.grad is not None
    assert chosen_P.grad.tolist() == pytest.approx(gradient[0], abs=EXACT)
    assert rejected_P.grad.tolist() == pytest.approx(gradient[1], abs=EXACT)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6))
def test_centring_loss_and_gradient_equal_a_loop(found: list[tuple[float, float]]) -> None:
    chosen_P, rejected_P = (torch.tensor(c, dtype=torch.float64, requires_grad=True) for c in zip(*found, strict=True))
    loss = centring_loss(chosen_P, rejected_P)
    loss.backward()
    total, pulls = [], []
    for chosen, rejected in found:
        total += [chosen * chosen, 2 * chosen * rejected, rejected * rejected]
        pulls.append((2 * chosen + 2 * rejected) / len(found))
    assert loss.item() == pytest.approx(math.fsum(total) / len(found), abs=EXACT)
    for leaf in (chosen_P, rejected_P):
        assert leaf.grad is not None
        assert leaf.grad.tolist() == pytest.approx(pulls, abs=EXACT)
