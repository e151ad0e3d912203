"""KTO: by hand, value and gradient against a loop, against TRL, and properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.losses.kto import kto_loss, mismatched_kl

# float64 terms of size below 10.
EXACT = 1e-12

Marked = tuple[float, bool]
marked = st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=1, max_size=6)


def columns(found: list[Marked]) -> tuple[Tensor, Tensor]:
    ratio, mark = zip(*found, strict=True)
    return torch.tensor(ratio, dtype=torch.float64, requires_grad=True), torch.tensor(mark)


def weighted(ratio_B: Tensor, mark_B: Tensor, kl: float, beta: float = 0.3) -> Tensor:
    scalar = torch.tensor(kl, dtype=ratio_B.dtype)
    return kto_loss(ratio_B, mark_B, scalar, beta=beta, desirable_weight=1.5, undesirable_weight=0.5)


def test_by_hand() -> None:
    # Log-ratio 3, KL 1, beta 0.5: gain 1. Good: 1 - sigmoid(1) = 0.268941. Bad: 1 - sigmoid(-1) = 0.731059.
    # At the reference with KL 0 both are 1/2, times their weights.
    good, bad = torch.tensor([True]), torch.tensor([False])
    three, one = torch.tensor([3.0]), torch.tensor(1.0)
    equal = {"beta": 0.5, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    assert kto_loss(three, good, one, **equal).item() == pytest.approx(0.268941, abs=1e-6)
    assert kto_loss(three, bad, one, **equal).item() == pytest.approx(0.731059, abs=1e-6)
    found = kto_loss(
        torch.zeros(2), torch.tensor([True, False]), torch.zeros(()), beta=1, desirable_weight=1.2, undesirable_weight=0.6
    )
    assert found.tolist() == pytest.approx([0.6, 0.3])
    assert mismatched_kl(torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -3.0])).item() == 1.5
    assert mismatched_kl(torch.tensor([-4.0]), torch.tensor([-3.0])).item() == 0.0


@settings(deadline=None)
@given(marked, st.floats(0, 5), st.floats(0.05, 2))
def test_loss_and_gradient_equal_a_loop(found: list[Marked], kl: float, beta: float) -> None:
    ratio_B, mark_B = columns(found)
    losses_B = weighted(ratio_B, mark_B, kl, beta)
    losses_B.sum().backward()
    for i, (ratio, good) in enumerate(found):
        # Value function by cases: a gain over z0 is worth sigmoid(gain) where good, sigmoid(-gain) where bad.
        value = 1 / (1 + math.exp(-beta * (ratio - kl))) if good else 1 / (1 + math.exp(-beta * (kl - ratio)))
        weight = 1.5 if good else 0.5
        assert losses_B[i].item() == pytest.approx(weight * (1 - value), abs=EXACT)
        assert ratio_B.grad is not None
        push = weight * beta * value * (1 - value)
        assert ratio_B.grad[i].item() == pytest.approx(-push if good else push, abs=EXACT)


# TRL 1.16.0 (torch 2.13.0, float64). How the numbers were made: KTOTrainer._compute_loss was called unbound on a bare namespace
# holding its settings, the model replaced by one that returns fixed log-probs, the mismatched completions' given beside them.
# Six completions, sums over tokens; `gradient` is that of the mean loss by each sum.
POLICY = [-5.377, -6.611, -0.48, -10.331, -2.193, -5.55]
REFERENCE = [-3.438, -6.118, -2.5, -10.725, -1.823, -6.487]
GOOD = [True, True, False, False, True, False]
MISMATCHED_REFERENCE = [-6.487, -3.438, -6.118, -2.5, -10.725, -1.823]
NEAR = [-3.55, -3.377, -4.611, 1.52, -8.331, -0.193]
FAR = [-14.55, -14.377, -15.611, -9.48, -19.331, -11.193]

TRL = [
    pytest.param(
        NEAR,
        {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
        2.0915,
        0.5253250427277131,
        [
            -0.004001926950141989,
            -0.004097854424976936,
            0.004166613414516231,
            0.004136794540985283,
            -0.004104184188731819,
            0.004152813386187334,
        ],
        id="equal weights",
    ),
    pytest.param(
        NEAR,
        {"beta": 0.5, "desirable_weight": 1.33, "undesirable_weight": 0.7},
        2.0915,
        0.6752632427956206,
        [
            -0.011502137817294558,
            -0.018735703520050287,
            0.014578674722833017,
            0.012242881161578607,
            -0.019390457799435615,
            0.013432894018420408,
        ],
        id="unequal weights",
    ),
    pytest.param(
        FAR,
        {"beta": 0.5, "desirable_weight": 1.0, "undesirable_weight": 1.0},
        0.0,
        0.6215988939091623,
        [
            -0.01661383982681483,
            -0.020520040815584697,
            0.01630846750405838,
            0.020632503384963204,
            -0.020656090014317393,
            0.01973070051678395,
        ],
        id="clamped KL",
    ),
]


@pytest.mark.parametrize(("mismatched", "options", "kl", "loss", "gradient"), TRL)
def test_equals_trl(mismatched: list[float], options: dict[str, float], kl: float, loss: float, gradient: list[float]) -> None:
    policy_B = torch.tensor(POLICY, dtype=torch.float64, requires_grad=True)
    found_kl = mismatched_kl(
        torch.tensor(mismatched, dtype=torch.float64), torch.tensor(MISMATCHED_REFERENCE, dtype=torch.float64)
    )
    assert found_kl.item() == pytest.approx(kl, abs=EXACT)
    ratio_B = policy_B - torch.tensor(REFERENCE, dtype=torch.float64)
    found = kto_loss(ratio_B, torch.tensor(GOOD), found_kl, **options).mean()
    found.backward()
    assert found.item() == pytest.approx(loss, abs=EXACT)
    assert policy_B.grad is not None
    assert policy_B.grad.tolist() == pytest.approx(gradient, abs=EXACT)


# Properties


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 0), st.floats(-50, 0)), min_size=1, max_size=6))
def test_the_reference_point_is_never_negative_and_has_no_gradient(found: list[tuple[float, float]]) -> None:
    policy_M, reference_M = (torch.tensor(column, requires_grad=True) for column in zip(*found, strict=True))
    kl = mismatched_kl(policy_M, reference_M)
    assert kl.item() >= 0
    assert not kl.requires_grad


def test_a_kl_that_carries_a_gradient_is_detached() -> None:
    kl = torch.tensor(1.0, requires_grad=True)
    ratio_B = torch.tensor([2.0], requires_grad=True)
    kto_loss(ratio_B, torch.tensor([True]), kl, beta=1, desirable_weight=1, undesirable_weight=1).sum().backward()
    assert kl.grad is None
    assert ratio_B.grad is not None


@settings(deadline=None)
@given(marked, st.floats(0, 5), st.integers(0, 1000))
def test_a_permuted_batch_gives_permuted_losses(found: list[Marked], kl: float, seed: int) -> None:
    ratio_B, mark_B = columns(found)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(weighted(ratio_B, mark_B, kl)[order], weighted(ratio_B[order], mark_B[order], kl))


@settings(deadline=None)
@given(marked, st.floats(0, 5))
def test_turning_a_mark_round_mirrors_the_gain(found: list[Marked], kl: float) -> None:
    """With equal weights a bad completion as far below z0 as a good one is above costs the same."""
    ratio_B, mark_B = columns(found)
    options = {"beta": 0.3, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    scalar = torch.tensor(kl, dtype=torch.float64)
    mirrored = kto_loss(2 * kl - ratio_B, ~mark_B, scalar, **options)
    torch.testing.assert_close(kto_loss(ratio_B, mark_B, scalar, **options), mirrored, atol=EXACT, rtol=EXACT)


def test_gradcheck_and_extremes() -> None:
    ratio_B, mark_B = columns([(1.0, True), (-2.0, False), (0.3, True)])
    assert torch.autograd.gradcheck(lambda r: weighted(r, mark_B, 0.4), (ratio_B,))
    wide_B = torch.tensor([1e6, -1e6], requires_grad=True)
    losses_B = weighted(wide_B, torch.tensor([True, True]), 0.0)
    losses_B.sum().backward()
    assert losses_B.tolist() == [0.0, 1.5]
    assert wide_B.grad is not None
    assert wide_B.grad.tolist() == [0.0, 0.0]


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ShapeError, match=r"desirable_mask_B \(3,\)"):
        weighted(torch.zeros(2), torch.ones(3, dtype=torch.bool), 0.0)
    with pytest.raises(ShapeError, match=r"^kl must be one number, its shape is \(2,\)$"):
        kto_loss(torch.zeros(2), torch.ones(2) > 0, torch.zeros(2), beta=1, desirable_weight=1, undesirable_weight=1)
    with pytest.raises(ShapeError, match=r"^no mismatched completion: the KL needs completions of other prompts$"):
        mismatched_kl(torch.zeros(0), torch.zeros(0))
    with pytest.raises(ShapeError, match=r"ref_logprobs_M \(1,\)"):
        mismatched_kl(torch.zeros(2), torch.zeros(1))
