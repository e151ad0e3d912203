"""DPO and its kin: by hand, value and gradient against a loop that knows the derivatives, against TRL, and properties."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.losses.preference import (
    hinge_loss,
    ipo_loss,
    log_ratio_margin,
    odds_ratio_loss,
    robust_loss,
    sigmoid_loss,
    simpo_loss,
)

# float64, a handful of terms of size below 1000 (IPO at the smallest beta squares a goal of 10).
EXACT = 1e-9
# At the hinge's corner the derivative is one of two: pairs nearer than this are moved away.
KINK = 1e-6

Pair = tuple[float, float]  # a margin (or a lead of means) and the probability that chosen is better
Loss = Callable[[Tensor, Tensor], Tensor]
pairs = st.lists(st.tuples(st.floats(-20, 20), st.floats(0, 1)), min_size=1, max_size=6)
betas = st.floats(0.05, 3)

OF_MARGIN: dict[str, Any] = {
    "sigmoid": lambda beta: lambda m, p: sigmoid_loss(m, p, beta=beta),
    "conservative": lambda beta: lambda m, p: sigmoid_loss(m, p, beta=beta, label_smoothing=0.2),
    "robust": lambda beta: lambda m, p: robust_loss(m, p, beta=beta, label_smoothing=0.1),
    "ipo": lambda beta: lambda m, p: ipo_loss(m, p, beta=beta),
    "hinge": lambda beta: lambda m, p: hinge_loss(m, p, beta=beta),
    "simpo": lambda beta: lambda m, p: simpo_loss(m, torch.zeros_like(m), p, beta=beta, gamma=0.7),
}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def slow(name: str, m: float, p: float, beta: float) -> tuple[float, float]:
    """One pair's loss and its derivative by the margin, worked out case by case: as labelled, and turned round."""

    def one(sign: int) -> tuple[float, float]:
        # sign 1: chosen is the better one; -1: rejected is.
        lead = sign * m
        if name in ("sigmoid", "conservative", "robust"):
            return -log_sigmoid(beta * lead), -beta * (1 - sigmoid(beta * lead)) * sign
        if name == "ipo":
            return (lead - 0.5 / beta) ** 2, 2 * (lead - 0.5 / beta) * sign
        if name == "hinge":
            return (1 - beta * lead, -beta * sign) if beta * lead < 1 else (0.0, 0.0)
        assert name == "simpo"
        return -log_sigmoid(beta * lead - 0.7), -beta * (1 - sigmoid(beta * lead - 0.7)) * sign

    (right, push), (wrong, pull) = one(1), one(-1)
    if name == "robust":
        scale, e = 1 / (1 - 2 * 0.1), 0.1
        clean, flipped = p * right + (1 - p) * wrong, p * wrong + (1 - p) * right
        clean_push, flipped_push = p * push + (1 - p) * pull, p * pull + (1 - p) * push
        return scale * ((1 - e) * clean - e * flipped), scale * ((1 - e) * clean_push - e * flipped_push)
    if name == "conservative":
        p = 0.8 * p + 0.2 * (1 - p)
    return p * right + (1 - p) * wrong, p * push + (1 - p) * pull


def columns(found: list[Pair]) -> tuple[Tensor, Tensor]:
    margin, probability = zip(*found, strict=True)
    return torch.tensor(margin, dtype=torch.float64, requires_grad=True), torch.tensor(probability, dtype=torch.float64)


def test_by_hand() -> None:
    # Margin 2, beta 0.5: logit 1. -log sigmoid(1) = 0.313262, -log sigmoid(-1) = 1.313262.
    # Robust at e = 0.1: (0.9 * 0.313262 - 0.1 * 1.313262) / 0.8 = 0.188262. Smoothed 0.1: 0.313262 + 0.1 = 0.413262.
    # IPO: goal 1 / (2 * 0.5) = 1, (2 - 1)^2 = 1. Hinge: 1 - 1 = 0. SimPO with gamma 1: -log sigmoid(0) = 0.693147.
    m, sure = torch.tensor([2.0]), torch.ones(1)
    assert sigmoid_loss(m, sure, beta=0.5).item() == pytest.approx(0.313262, abs=1e-6)
    assert sigmoid_loss(m, sure, beta=0.5, label_smoothing=0.1).item() == pytest.approx(0.413262, abs=1e-6)
    assert robust_loss(m, sure, beta=0.5, label_smoothing=0.1).item() == pytest.approx(0.188262, abs=1e-6)
    assert ipo_loss(m, sure, beta=0.5).item() == 1.0
    assert hinge_loss(m, sure, beta=0.5).item() == 0.0
    assert hinge_loss(-m, sure, beta=0.5).item() == 2.0
    assert simpo_loss(-torch.ones(1), -3 * sure, sure, beta=0.5, gamma=1.0).item() == pytest.approx(0.693147, abs=1e-6)
    # Mean probabilities 1/2 and 1/4: odds 1 and 1/3, log of their ratio log 3. -log sigmoid(log 3) = log(4/3) = 0.287682.
    halves = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    assert odds_ratio_loss(*halves, sure).item() == pytest.approx(0.287682, abs=1e-6)
    assert log_ratio_margin(*(torch.tensor([v]) for v in (-1.0, -2.0, -1.5, -4.0))).item() == -1.5  # 0.5 - 2


@pytest.mark.parametrize("name", OF_MARGIN)
@settings(deadline=None, max_examples=40)
@given(found=pairs, beta=betas)
def test_loss_and_gradient_equal_a_loop(name: str, found: list[Pair], beta: float) -> None:
    found = [(m + 10 * KINK, p) if abs(abs(m) * beta - 1) < KINK else (m, p) for m, p in found]
    margin_P, probability_P = columns(found)
    losses_P = OF_MARGIN[name](beta)(margin_P, probability_P)
    losses_P.sum().backward()
    expected = [slow(name, m, p, beta) for m, p in found]
    assert losses_P.tolist() == pytest.approx([loss for loss, _ in expected], abs=EXACT)
    assert margin_P.grad is not None
    assert margin_P.grad.tolist() == pytest.approx([push for _, push in expected], abs=EXACT)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-8, -0.01), st.floats(-8, -0.01), st.floats(0, 1)), min_size=1, max_size=5))
def test_odds_ratio_and_gradient_equal_a_loop(found: list[tuple[float, float, float]]) -> None:
    columns = [torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in zip(*found, strict=True)]
    losses_P = odds_ratio_loss(columns[0], columns[1], columns[2].detach())
    losses_P.sum().backward()
    for i, (c, r, p) in enumerate(found):
        q, s = math.exp(c), math.exp(r)
        odds = (q / (1 - q)) / (s / (1 - s))
        # The better one's share of the odds: sigmoid(log odds) = odds / (1 + odds).
        share = odds / (1 + odds)
        assert losses_P[i].item() == pytest.approx(-p * math.log(share) - (1 - p) * math.log(1 - share), rel=1e-8, abs=EXACT)
        # d log odds(q) / d log q = 1 / (1 - q).
        push = share - p
        assert columns[0].grad is not None
        assert columns[1].grad is not None
        assert columns[0].grad[i].item() == pytest.approx(push / (1 - q), rel=1e-8, abs=EXACT)
        assert columns[1].grad[i].item() == pytest.approx(-push / (1 - s), rel=1e-8, abs=EXACT)


# TRL 1.16.0 (torch 2.13.0, float64). Three pairs, chosen in rows 0 to 2, rejected in rows 3 to 5; response tokens' log-probs.
# How the numbers were made: DPOTrainer._compute_loss (sigmoid, hinge, ipo, robust), CPOTrainer.cpo_loss of trl.experimental
# (simpo; "sigmoid" with label smoothing on log-ratios is conservative DPO) and ORPOTrainer.odds_ratio_loss of trl.experimental
# were called unbound on a bare namespace holding their settings, the model replaced by one that returns these log-probs.
# `gradient` is that of the mean loss by each sequence's log-prob (the mean one for simpo and orpo).
POLICY = [
    [-0.821, -2.586, -1.97],
    [-1.682, -2.289, -2.278, -0.189, -0.173],
    [-0.113, -0.367],
    [-2.981, -2.773, -2.596, -1.981],
    [-2.193],
    [-0.266, -1.932, -2.153, -1.031, -0.168],
]
REFERENCE = [
    [-0.183, -2.21, -1.045],
    [-1.437, -0.667, -0.527, -2.422, -1.065],
    [-2.434, -0.066],
    [-2.767, -2.86, -2.519, -2.579],
    [-1.823],
    [-1.376, -1.575, -0.959, -1.033, -1.544],
]


def trl_columns(*, per_token: bool) -> tuple[Tensor, Tensor]:
    """(policy, reference) of the six sequences."""
    return tuple(  # type: ignore[return-value]
        torch.tensor([sum(row) / (len(row) if per_token else 1) for row in rows], dtype=torch.float64)
        for rows in (POLICY, REFERENCE)
    )


TRL_MARGIN = [
    pytest.param(
        lambda m: sigmoid_loss(m, torch.ones(3), beta=0.1),
        False,
        0.7187880284751653,
        [-0.01860206283097603, -0.01676916537441747, -0.015765047743544466],
        id="sigmoid",
    ),
    pytest.param(
        lambda m: sigmoid_loss(m, torch.ones(3), beta=0.5),
        False,
        0.8735393033205416,
        [-0.1270852986194551, -0.08589502597072791, -0.061306452179575296],
        id="sigmoid, beta 0.5",
    ),
    pytest.param(
        lambda m: sigmoid_loss(m, torch.ones(3), beta=0.3, label_smoothing=0.2),
        False,
        (0.9631392312168179 + 0.7043873721546666 + 0.6088145509652674) / 3,
        [-0.0468165600507955, -0.030922395340481773, -0.021948204666916597],
        id="conservative",
    ),
    pytest.param(
        lambda m: sigmoid_loss(m, torch.full((3,), 0.8), beta=0.3),
        False,
        (0.9631392312168179 + 0.7043873721546666 + 0.6088145509652674) / 3,
        [-0.0468165600507955, -0.030922395340481773, -0.021948204666916597],
        id="soft target 0.8 is smoothing 0.2",
    ),
    pytest.param(
        lambda m: robust_loss(m, torch.ones(3), beta=0.3, label_smoothing=0.1),
        False,
        0.8034028847789173,
        [-0.0793165600507955, -0.06342239534048177, -0.0544482046669166],
        id="robust",
    ),
    pytest.param(
        lambda m: hinge_loss(m, torch.ones(3), beta=0.5), False, 1.2288333333333332, [-0.16666666666666666] * 3, id="hinge"
    ),
]


@pytest.mark.parametrize(("loss", "per_token", "expected", "gradient"), TRL_MARGIN)
def test_equals_trl(loss: Callable[[Tensor], Tensor], per_token: bool, expected: float, gradient: list[float]) -> None:
    policy, reference = trl_columns(per_token=per_token)
    policy.requires_grad_()
    found = loss(log_ratio_margin(policy[:3], policy[3:], reference[:3], reference[3:])).mean()
    found.backward()
    # Soft targets such as 0.8 are float32 here: seven digits.
    assert found.item() == pytest.approx(expected, abs=1e-7)
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx([*gradient, *(-value for value in gradient)], abs=1e-7)


def test_ipo_equals_trl() -> None:
    policy, reference = trl_columns(per_token=True)
    policy.requires_grad_()
    found = ipo_loss(
        log_ratio_margin(policy[:3], policy[3:], reference[:3], reference[3:]), torch.ones(3, dtype=torch.float64), beta=0.1
    ).mean()
    found.backward()
    assert found.item() == pytest.approx(24.27114624925926, abs=EXACT)
    assert policy.grad is not None
    # TRL's gradient is by the sums: each mean's over its length.
    by_sum = [value / len(row) for value, row in zip(policy.grad.tolist(), POLICY, strict=True)]
    frozen = [-1.2766296296296296, -0.63048, -1.3924666666666665, 0.9574722222222222, 3.1524, 0.5569866666666666]
    assert by_sum == pytest.approx(frozen, abs=EXACT)


def test_simpo_equals_trl() -> None:
    means, _ = trl_columns(per_token=True)
    means.requires_grad_()
    found_P = simpo_loss(means[:3], means[3:], torch.ones(3, dtype=torch.float64), beta=2.0, gamma=1.0)
    found_P.mean().backward()
    assert found_P.tolist() == pytest.approx([0.4443216388963977, 0.38957360007674685, 0.39009012685887035], abs=EXACT)
    half = [-0.2391605774839759, -0.21510291129571518, -0.2153360958409847]
    assert means.grad is not None
    assert means.grad.tolist() == pytest.approx([*half, *(-value for value in half)], abs=EXACT)


def test_orpo_equals_trl() -> None:
    means, _ = trl_columns(per_token=True)
    means.requires_grad_()
    found_P = 0.1 * odds_ratio_loss(means[:3], means[3:], torch.ones(3, dtype=torch.float64))
    found_P.mean().backward()
    # TRL computes the odds in float32; its sign is that of the term it subtracts.
    float32 = 1e-7
    assert found_P.tolist() == pytest.approx([0.03428773581981659, 0.029683792963624, 0.01251637376844883], abs=float32)
    frozen = [-0.011609657667577267, -0.011672459542751312, -0.0183790922164917]
    frozen += [0.01046675443649292, 0.009636432863771915, 0.0058492631651461124]
    assert means.grad is not None
    assert means.grad.tolist() == pytest.approx(frozen, abs=float32)


# Properties


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-50, 0)] * 4), min_size=1, max_size=6))
def test_swapping_a_pair_negates_its_margin(found: list[tuple[float, ...]]) -> None:
    c, r, rc, rr = (torch.tensor(column, dtype=torch.float64) for column in zip(*found, strict=True))
    assert torch.equal(log_ratio_margin(c, r, rc, rr), -log_ratio_margin(r, c, rr, rc))


@pytest.mark.parametrize("name", OF_MARGIN)
@settings(deadline=None, max_examples=30)
@given(found=pairs, beta=betas)
def test_swapping_a_pair_and_its_probability_changes_nothing(name: str, found: list[Pair], beta: float) -> None:
    loss: Loss = OF_MARGIN[name](beta)
    margin_P, probability_P = columns(found)
    torch.testing.assert_close(loss(margin_P, probability_P), loss(-margin_P, 1 - probability_P), atol=EXACT, rtol=EXACT)


@pytest.mark.parametrize("name", OF_MARGIN)
@settings(deadline=None, max_examples=30)
@given(found=pairs, seed=st.integers(0, 1000))
def test_a_permuted_batch_gives_permuted_losses(name: str, found: list[Pair], seed: int) -> None:
    loss: Loss = OF_MARGIN[name](0.3)
    margin_P, probability_P = columns(found)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(loss(margin_P, probability_P)[order], loss(margin_P[order], probability_P[order]))


@settings(deadline=None)
@given(pairs, st.floats(0.01, 0.45))
def test_robust_on_flipped_labels_is_dpo_on_clean_ones(found: list[Pair], flipped: float) -> None:
    """What it is for: its mean over labels flipped at the assumed rate does not know of the flips."""
    margin_P, _ = columns(found)
    sure = torch.ones_like(margin_P)
    loss = [robust_loss(sign * margin_P, sure, beta=0.3, label_smoothing=flipped) for sign in (1, -1)]
    average_P = (1 - flipped) * loss[0] + flipped * loss[1]
    torch.testing.assert_close(average_P, sigmoid_loss(margin_P, sure, beta=0.3), atol=1e-8, rtol=1e-8)


@settings(deadline=None)
@given(st.floats(0.55, 0.95), st.floats(0.05, 1))
def test_the_best_margin_of_a_soft_label_is_finite(probability: float, beta: float) -> None:
    """Sigmoid: log(p / (1 - p)) / beta. IPO: (2 p - 1) / (2 beta). There the gradient is zero."""
    for loss, best in (
        (sigmoid_loss, math.log(probability / (1 - probability)) / beta),
        (ipo_loss, (2 * probability - 1) / (2 * beta)),
    ):
        margin_P = torch.tensor([best], dtype=torch.float64, requires_grad=True)
        loss(margin_P, torch.tensor([probability], dtype=torch.float64), beta=beta).sum().backward()
        assert margin_P.grad is not None
        assert margin_P.grad.item() == pytest.approx(0, abs=EXACT)


def test_the_reference_gets_no_gradient() -> None:
    values = [torch.tensor([-1.0, -2.0], requires_grad=True) for _ in range(4)]
    log_ratio_margin(*values).sum().backward()
    assert values[0].grad is not None
    assert values[0].grad.tolist() == [1.0, 1.0]
    assert values[2].grad is None
    assert values[3].grad is None


@pytest.mark.parametrize("name", OF_MARGIN)
def test_losses_have_the_precision_of_the_margin(name: str) -> None:
    margin_P = torch.ones(2, dtype=torch.float32)
    assert OF_MARGIN[name](0.3)(margin_P, torch.ones(2, dtype=torch.float64)).dtype == torch.float32


def test_extremes_stay_finite() -> None:
    margin_P = torch.tensor([-1e4, 1e4], requires_grad=True)
    for name in ("sigmoid", "robust", "hinge", "simpo"):
        margin_P.grad = None
        losses_P = OF_MARGIN[name](1.0)(margin_P, torch.ones(2))
        losses_P.sum().backward()
        assert bool(losses_P.isfinite().all())
        assert margin_P.grad is not None
        assert bool(margin_P.grad.isfinite().all())
    certain_P = torch.tensor([0.0, -1e-12, -200.0], requires_grad=True)  # a mean log-prob of 0 is probability 1
    losses_P = odds_ratio_loss(certain_P, torch.tensor([-200.0, -1.0, 0.0]), torch.ones(3))
    losses_P.sum().backward()
    assert bool(losses_P.isfinite().all())
    assert certain_P.grad is not None
    assert bool(certain_P.grad.isfinite().all())


def test_shapes_that_differ_are_named() -> None:
    two, three = torch.zeros(2), torch.zeros(3)
    for loss in (OF_MARGIN[name](0.1) for name in OF_MARGIN if name != "simpo"):
        with pytest.raises(ShapeError, match=r"probability_P \(3,\)"):
            loss(two, three)
    with pytest.raises(ShapeError, match=r"rejected_mean_P \(3,\)"):
        simpo_loss(two, three, two, beta=1.0, gamma=0.0)
    with pytest.raises(ShapeError, match=r"rejected_mean_P \(3,\)"):
        odds_ratio_loss(two, three, two)
    with pytest.raises(ShapeError, match=r"ref_rejected_P \(3,\)"):
        log_ratio_margin(two, two, two, three)
