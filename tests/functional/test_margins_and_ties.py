"""Margins and ties: a peer's numbers, hand-derived ones, a slow float64 loop with its own derivatives, and properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.losses.classes import class_loss
from heedful.functional.losses.pairwise import pairwise_loss
from heedful.functional.losses.ties import (
    TieModel,
    log_tie_parameter,
    raw_tie_parameter,
    tie_aware_loss,
    tie_log_probabilities,
)

# float64 means of at most 6 terms of size below 20.
EXACT = 1e-11
# Central differences of a smooth function with steps of 1e-6 in float64.
DIFFERENCE = 1e-7

gaps = st.floats(-6, 6)
parameters = st.floats(0.05, 3)  # log nu, or log theta, which is above 0
models: st.SearchStrategy[TieModel] = st.sampled_from(["davidson", "rao-kupper"])
# chosen, rejected, probability, margin, tied
Pair = tuple[float, float, float, float, bool]
pairs = st.lists(st.tuples(gaps, gaps, st.floats(0, 1), st.floats(-2, 2), st.booleans()), min_size=1, max_size=6)


def vector(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


# Margins


def test_margin_loss_equals_the_peers() -> None:
    """TRL 1.16.0, RewardTrainer.compute_loss, evaluated in float64: -logsigmoid(chosen - rejected - margin).mean()."""
    chosen_P, rejected_P, margin_P = (
        torch.tensor(v, dtype=torch.float64) for v in ([1.5, -0.25, 3.0], [0.5, 0.75, 2.9], [0.0, 0.5, 1.0])
    )
    loss = pairwise_loss(chosen_P, rejected_P, torch.ones(3), margin_P)
    assert loss.item() == pytest.approx(1.085276280078, abs=1e-11)


def test_margin_by_hand() -> None:
    # Gap 2 with margin 1 is gap 1: log(1 + e^-1) = 0.313262, and its push is sigmoid(1) - 1 = -0.268941.
    chosen_P, rejected_P = vector([2.5]), vector([0.5])
    loss = pairwise_loss(chosen_P, rejected_P, torch.ones(1), torch.ones(1))
    loss.backward()
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)
    assert chosen_P.grad is not None
    assert rejected_P.grad is not None
    assert (chosen_P.grad.item(), rejected_P.grad.item()) == pytest.approx((-0.268941, 0.268941), abs=1e-6)


@settings(deadline=None)
@given(pairs)
def test_margin_loss_and_gradient_equal_a_loop(found: list[Pair]) -> None:
    chosen_P, rejected_P = vector([pair[0] for pair in found]), vector([pair[1] for pair in found])
    p_P, m_P = (torch.tensor([pair[i] for pair in found], dtype=torch.float64) for i in (2, 3))
    loss = pairwise_loss(chosen_P, rejected_P, p_P, m_P)
    loss.backward()
    terms, pushes = [], []
    for chosen, rejected, p, margin, _ in found:
        right = 1 / (1 + math.exp(-(chosen - rejected - margin)))
        terms.append(-p * math.log(right) - (1 - p) * math.log(1 - right))
        pushes.append((right - p) / len(found))
    assert loss.item() == pytest.approx(math.fsum(terms) / len(found), abs=EXACT)
    assert chosen_P.grad is not None
    assert rejected_P.grad is not None
    assert chosen_P.grad.tolist() == pytest.approx(pushes, abs=EXACT)
    assert rejected_P.grad.tolist() == pytest.approx([-push for push in pushes], abs=EXACT)


@settings(deadline=None)
@given(pairs)
def test_margin_zero_is_none_and_mirrored_pairs_cost_the_same(found: list[Pair]) -> None:
    chosen_P, rejected_P = (torch.tensor([pair[i] for pair in found], dtype=torch.float64) for i in (0, 1))
    p_P, m_P = (torch.tensor([pair[i] for pair in found], dtype=torch.float64) for i in (2, 3))
    plain = pairwise_loss(chosen_P, rejected_P, p_P)
    assert pairwise_loss(chosen_P, rejected_P, p_P, torch.zeros_like(m_P)).item() == plain.item()
    straight = pairwise_loss(chosen_P, rejected_P, p_P, m_P)
    mirrored = pairwise_loss(rejected_P, chosen_P, 1 - p_P, -m_P)
    assert straight.item() == pytest.approx(mirrored.item(), abs=EXACT)


# Ties


def slow(gap: float, log_parameter: float, model: str) -> tuple[float, float, float]:
    """The three probabilities from worths, as the papers write them."""
    a, b, parameter = math.exp(gap), 1.0, math.exp(log_parameter)
    if model == "davidson":
        whole = a + b + parameter * math.sqrt(a * b)
        return a / whole, b / whole, parameter * math.sqrt(a * b) / whole
    better, worse = a / (a + parameter * b), b / (parameter * a + b)
    return better, worse, (parameter**2 - 1) * a * b / ((a + parameter * b) * (parameter * a + b))


def test_three_probabilities_by_hand() -> None:
    # Equal rewards: nu = 1 makes the three alike; theta = 2 gives 1/3, 1/3 and (4 - 1) / 9 = 1/3.
    for model, parameter in (("davidson", 1.0), ("rao-kupper", 2.0)):
        log_P3 = tie_log_probabilities(torch.zeros(1), torch.tensor(math.log(parameter)), model)  # type: ignore[arg-type]
        assert log_P3.exp().tolist()[0] == pytest.approx([1 / 3] * 3, abs=1e-6)
    # Worths 4 and 1 (gap log 4). Davidson, nu = 0.5: 4, 1, 0.5 * 2 = 1 over 6. Rao and Kupper, theta = 2: 4/6, 1/9, 3*4/(6*9).
    gap = torch.tensor([math.log(4)])
    found = tie_log_probabilities(gap, torch.tensor(math.log(0.5)), "davidson").exp().tolist()[0]
    assert found == pytest.approx([4 / 6, 1 / 6, 1 / 6], abs=1e-6)
    found = tie_log_probabilities(gap, torch.tensor(math.log(2)), "rao-kupper").exp().tolist()[0]
    assert found == pytest.approx([2 / 3, 1 / 9, 2 / 9], abs=1e-6)


@settings(deadline=None)
@given(gaps, parameters, models)
def test_probabilities_sum_to_one_equal_the_papers_and_mirror(gap: float, parameter: float, model: TieModel) -> None:
    log_parameter = torch.tensor(parameter, dtype=torch.float64)
    better, worse, level = tie_log_probabilities(vector([gap]), log_parameter, model).exp().tolist()[0]
    assert better + worse + level == pytest.approx(1, abs=EXACT)
    assert (better, worse, level) == pytest.approx(slow(gap, parameter, model), abs=EXACT)
    swapped = tie_log_probabilities(vector([-gap]), log_parameter, model).exp().tolist()[0]
    assert swapped == pytest.approx([worse, better, level], abs=EXACT)
    nearest = tie_log_probabilities(vector([0.0]), log_parameter, model).exp().tolist()[0]
    assert level <= nearest[2] + EXACT, "a tie is likeliest between equals"


def slow_loss(found: list[Pair], log_parameter: float, model: str) -> float:
    total = 0.0
    for chosen, rejected, p, margin, tied in found:
        better, worse, level = slow(chosen - rejected - margin, log_parameter, model)
        total -= math.log(level) if tied else p * math.log(better) + (1 - p) * math.log(worse)
    return total / len(found)


@settings(deadline=None)
@given(pairs, parameters, models)
def test_tie_aware_loss_and_gradients_equal_a_loop(found: list[Pair], parameter: float, model: TieModel) -> None:
    chosen_P, rejected_P = vector([pair[0] for pair in found]), vector([pair[1] for pair in found])
    p_P, m_P = (torch.tensor([pair[i] for pair in found], dtype=torch.float64) for i in (2, 3))
    tied_P = torch.tensor([pair[4] for pair in found])
    log_parameter = torch.tensor(parameter, dtype=torch.float64, requires_grad=True)
    loss = tie_aware_loss(chosen_P, rejected_P, p_P, tied_P, log_parameter, model, m_P)
    loss.backward()
    assert loss.item() == pytest.approx(slow_loss(found, parameter, model), abs=1e-9)
    step = 1e-6  # the third derivative in log theta grows as its cube shrinks

    def moved(i: int, by: float) -> list[Pair]:
        return [(pair[0] + by if j == i else pair[0], *pair[1:]) for j, pair in enumerate(found)]

    assert chosen_P.grad is not None
    assert rejected_P.grad is not None
    assert log_parameter.grad is not None
    slopes = [
        (slow_loss(moved(i, step), parameter, model) - slow_loss(moved(i, -step), parameter, model)) / (2 * step)
        for i in range(len(found))
    ]
    assert chosen_P.grad.tolist() == pytest.approx(slopes, abs=DIFFERENCE)
    assert rejected_P.grad.tolist() == pytest.approx([-slope for slope in slopes], abs=DIFFERENCE)
    slope = (slow_loss(found, parameter + step, model) - slow_loss(found, parameter - step, model)) / (2 * step)
    assert log_parameter.grad.item() == pytest.approx(slope, abs=DIFFERENCE)


def test_few_ties_approach_the_plain_loss() -> None:
    """With nu or theta - 1 near 0, decided pairs cost what they cost without ties."""
    chosen_P, rejected_P, p_P = vector([2.0, 0.5]), vector([1.0, 0.75]), torch.tensor([1.0, 0.8], dtype=torch.float64)
    plain = pairwise_loss(chosen_P, rejected_P, p_P).item()
    none_P = torch.zeros(2, dtype=torch.bool)
    for model, log_parameter in (("davidson", -30.0), ("rao-kupper", 1e-9)):
        found = tie_aware_loss(chosen_P, rejected_P, p_P, none_P, torch.tensor(log_parameter), model)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(plain, abs=1e-7)


@pytest.mark.parametrize("model", ["davidson", "rao-kupper"])
def test_a_tie_pulls_rewards_together_and_the_parameter_up(model: TieModel) -> None:
    chosen_P, rejected_P = vector([1.0]), vector([0.0])
    log_parameter = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    tie_aware_loss(chosen_P, rejected_P, torch.tensor([0.5]), torch.tensor([True]), log_parameter, model).backward()
    assert chosen_P.grad is not None
    assert log_parameter.grad is not None
    assert chosen_P.grad.item() > 0
    assert log_parameter.grad.item() < 0


@pytest.mark.parametrize("model", ["davidson", "rao-kupper"])
def test_wide_gaps_and_the_parameters_own_scale(model: TieModel) -> None:
    log_parameter = log_tie_parameter(torch.tensor(0.0), model)
    assert float(log_parameter.exp()) == pytest.approx(1.0 if model == "davidson" else 2.0)
    assert tie_log_probabilities(torch.tensor([200.0, -200.0]), log_parameter, model).isfinite().all()
    for parameter in (1.1, 2.0, 7.5):
        raw = torch.tensor(raw_tie_parameter(parameter, model), dtype=torch.float64)
        assert float(log_tie_parameter(raw, model).exp()) == pytest.approx(parameter, abs=EXACT)


def test_shapes_that_differ_are_named() -> None:
    two, three = torch.zeros(2), torch.zeros(3)
    with pytest.raises(ShapeError, match=r"margin_P \(3,\)"):
        pairwise_loss(two, two, two, three)
    with pytest.raises(ShapeError, match=r"tied_P \(3,\)"):
        tie_aware_loss(two, two, two, three.bool(), torch.tensor(0.1), "davidson")
    with pytest.raises(ShapeError, match="labels_B"):
        class_loss(torch.zeros(2, 2), torch.zeros(3, dtype=torch.long))


def test_the_loss_has_the_precision_of_the_rewards() -> None:
    wide_P = torch.ones(2, dtype=torch.float64)
    nothing_P = torch.zeros(2, requires_grad=True)
    for loss in (
        pairwise_loss(nothing_P, nothing_P, wide_P),
        tie_aware_loss(nothing_P, nothing_P, wide_P, wide_P == 0, torch.tensor(0.1), "davidson"),
    ):
        assert loss.dtype == torch.float32


# Classes


def test_no_texts_cost_nothing_and_still_have_a_gradient() -> None:
    logits_BL = torch.zeros(0, 2, requires_grad=True)
    loss = class_loss(logits_BL, torch.zeros(0, dtype=torch.long))
    assert loss.item() == 0.0
    loss.backward()


@settings(deadline=None)
@given(st.lists(st.tuples(gaps, gaps, st.integers(0, 1)), min_size=1, max_size=6))
def test_class_loss_and_gradient_equal_a_loop(found: list[tuple[float, float, int]]) -> None:
    logits_BL = torch.tensor([row[:2] for row in found], dtype=torch.float64, requires_grad=True)
    loss = class_loss(logits_BL, torch.tensor([row[2] for row in found]))
    loss.backward()
    total, slopes = 0.0, []
    for a, b, label in found:
        weights = (math.exp(a), math.exp(b))
        shares = [weight / sum(weights) for weight in weights]
        total -= math.log(shares[label])
        slopes.append([(share - (i == label)) / len(found) for i, share in enumerate(shares)])
    assert loss.item() == pytest.approx(total / len(found), abs=EXACT)
    assert logits_BL.grad is not None
    for row, slope in zip(logits_BL.grad.tolist(), slopes, strict=True):
        assert row == pytest.approx(slope, abs=EXACT)
