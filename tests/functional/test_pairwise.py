"""The reward model's losses: by hand, against math, and properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.losses.pairwise import centring_loss, pairwise_loss

# float64 means of at most 6 terms of size below 20.
EXACT = 1e-12

Pair = tuple[float, float, float]
pairs = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 1)), min_size=1, max_size=6)


def columns(found: list[Pair]) -> list[Tensor]:
    return [torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in zip(*found, strict=True)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_pairwise_loss_by_hand() -> None:
    # Gap 1 surely right: -log sigmoid(1) = log(1 + e^-1) = 0.313262. Gap -1 surely right: log(1 + e) = 1.313262.
    # Equal rewards cost log 2 = 0.693147 whatever p. Gap 1, p = 3/4: 0.313262 + 1/4 = 0.563262.
    for chosen, rejected, probability, expected in (
        (2.0, 1.0, 1.0, 0.313262),
        (1.0, 2.0, 1.0, 1.313262),
        (4.0, 4.0, 0.9, 0.693147),
        (2.0, 1.0, 0.75, 0.563262),
    ):
        loss = pairwise_loss(*(torch.tensor([value]) for value in (chosen, rejected, probability)))
        assert loss.item() == pytest.approx(expected, abs=1e-6)
    # Both first pairs in one batch: the mean, (0.313262 + 1.313262) / 2.
    both = pairwise_loss(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0]), torch.ones(2))
    assert both.item() == pytest.approx(0.813262, abs=1e-6)


@settings(deadline=None)
@given(pairs)
def test_pairwise_loss_and_gradient_equal_a_loop(found: list[Pair]) -> None:
    chosen_P, rejected_P, probability_P = columns(found)
    loss = pairwise_loss(chosen_P, rejected_P, probability_P.detach())
    loss.backward()
    slow = [-p * math.log(sigmoid(c - r)) - (1 - p) * math.log(sigmoid(r - c)) for c, r, p in found]
    assert loss.item() == pytest.approx(math.fsum(slow) / len(found), abs=EXACT)
    # Each reward is pushed by (sigmoid(gap) - p) / P, the other one the opposite way.
    pushes = [(sigmoid(c - r) - p) / len(found) for c, r, p in found]
    assert chosen_P.grad is not None
    assert rejected_P.grad is not None
    assert chosen_P.grad.tolist() == pytest.approx(pushes, abs=EXACT)
    assert rejected_P.grad.tolist() == pytest.approx([-push for push in pushes], abs=EXACT)


@settings(deadline=None)
@given(pairs)
def test_swapping_a_pair_and_its_probability_changes_nothing(found: list[Pair]) -> None:
    straight = pairwise_loss(*columns(found)).item()
    swapped = pairwise_loss(*columns([(r, c, 1 - p) for c, r, p in found])).item()
    assert straight == pytest.approx(swapped, abs=EXACT)
    assert centring_loss(*columns(found)[:2]).item() == centring_loss(*columns([(r, c, p) for c, r, p in found])[:2]).item()


@settings(deadline=None)
@given(pairs)
def test_swapping_a_pair_alone_negates_its_logit(found: list[Pair]) -> None:
    """At p = 1 the loss is softplus(-gap); swapped, softplus(gap): the two differ by exactly the mean gap."""
    sure = [(c, r, 1.0) for c, r, _ in found]
    straight, swapped = pairwise_loss(*columns(sure)).item(), pairwise_loss(*columns([(r, c, p) for c, r, p in sure])).item()
    assert swapped - straight == pytest.approx(math.fsum(c - r for c, r, _ in found) / len(found), abs=EXACT)


@settings(deadline=None)
@given(pairs, st.randoms(use_true_random=False), st.floats(-3, 3))
def test_order_and_a_common_shift_change_nothing(found: list[Pair], random: object, shift: float) -> None:
    other = [(c + shift, r + shift, p) for c, r, p in found]
    random.shuffle(other)  # type: ignore[attr-defined]
    assert pairwise_loss(*columns(found)).item() == pytest.approx(pairwise_loss(*columns(other)).item(), abs=EXACT)


def test_a_wide_gap_stays_finite() -> None:
    chosen_P = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = pairwise_loss(chosen_P, torch.zeros(2), torch.ones(2))
    loss.backward()
    assert loss.item() == pytest.approx(5e3)
    assert chosen_P.grad is not None
    assert chosen_P.grad.tolist() == [-0.5, 0.0]


def test_centring_loss_by_hand() -> None:
    # (1 + 2)^2 = 9 and (-4 + 3)^2 = 1, mean 5. Gradient 2 (r_j + r_k) / 2: 3 and -1, for both rewards alike.
    chosen_P = torch.tensor([1.0, -4.0], requires_grad=True)
    rejected_P = torch.tensor([2.0, 3.0], requires_grad=True)
    loss = centring_loss(chosen_P, rejected_P)
    loss.backward()
    assert loss.item() == 5.0
    assert chosen_P.grad is not None
    assert rejected_P.grad is not None
    assert chosen_P.grad.tolist() == rejected_P.grad.tolist() == [3.0, -1.0]


def test_gradcheck() -> None:
    chosen_P, rejected_P, probability_P = columns([(1.0, -2.0, 1.0), (0.3, 0.4, 0.6), (-1.0, 2.0, 0.5)])
    assert torch.autograd.gradcheck(lambda c, r: pairwise_loss(c, r, probability_P.detach()), (chosen_P, rejected_P))
    assert torch.autograd.gradcheck(centring_loss, (chosen_P, rejected_P))


def test_no_pairs_cost_nothing_and_still_have_a_gradient() -> None:
    chosen_P, rejected_P = torch.zeros(0, requires_grad=True), torch.zeros(0)
    for loss in (pairwise_loss(chosen_P, rejected_P, torch.zeros(0)), centring_loss(chosen_P, rejected_P)):
        assert loss.item() == 0.0
        loss.backward()


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(ShapeError, match=r"rejected_P \(3,\)"):
        pairwise_loss(torch.zeros(2), torch.zeros(3), torch.zeros(2))
    with pytest.raises(ShapeError, match=r"rejected_P \(3,\)"):
        centring_loss(torch.zeros(2), torch.zeros(3))
