"""What the other files of this folder check by hand or in part, against slow loops over lists in float64."""

from __future__ import annotations

import math
import statistics
from typing import Literal

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.functional.advantages import (
    equal_groups,
    explained_variance,
    group_advantages,
    kl_advantages,
    leave_one_out,
    sampled_kl,
)
from heedful.functional.logprobs import sequence_logprobs
from heedful.functional.losses.kto import mismatched_kl
from heedful.functional.losses.ppo import policy_loss
from heedful.functional.losses.preference import log_ratio_margin

# float64 sums of at most 24 terms of size below 100.
EXACT = 1e-11
# At a kink the derivative is one of two: cases nearer than this to one are left out.
KINK = 1e-6
WIDTH = 5

number = st.floats(-3, 3, width=32)
Rows = list[list[float]]


def ragged(columns: int) -> st.SearchStrategy[list[Rows]]:
    """So many columns of rows of the same ragged lengths, some empty."""
    lengths = st.lists(st.integers(0, WIDTH), min_size=1, max_size=4)
    return lengths.flatmap(lambda found: st.tuples(*[_rows(found)] * columns).map(list))


def _rows(lengths: list[int]) -> st.SearchStrategy[Rows]:
    return st.tuples(*(st.lists(number, min_size=n, max_size=n) for n in lengths)).map(list)


def padded(rows: Rows, filler: float = 0.0) -> Tensor:
    return torch.tensor([row + [filler] * (WIDTH - len(row)) for row in rows], dtype=torch.float64).reshape(len(rows), WIDTH)


def mask_of(rows: Rows) -> Tensor:
    return torch.tensor([[t < len(row) for t in range(WIDTH)] for row in rows])


# Advantages


@settings(deadline=None)
@given(ragged(3), st.floats(0, 2), st.sampled_from([0.0, math.inf, math.nan]))
def test_kl_advantages(columns: list[Rows], kl_coef: float, filler: float) -> None:
    policy, reference, kl = columns
    found = kl_advantages(*(padded(rows, filler) for rows in columns), mask_of(policy), kl_coef=kl_coef)
    expected = [
        [kl_coef * (k + r - p) for p, r, k in zip(*rows, strict=True)] for rows in zip(policy, reference, kl, strict=True)
    ]
    torch.testing.assert_close(found, padded(expected), atol=EXACT, rtol=0)


@pytest.mark.parametrize("kind", ["k1", "k3"])
@settings(deadline=None)
@given(gaps=st.lists(st.floats(-19, 19), min_size=1, max_size=5))
def test_sampled_kl_and_its_gradient(kind: Literal["k1", "k3"], gaps: list[float]) -> None:
    policy_BT = torch.tensor([gaps], dtype=torch.float64, requires_grad=True)
    found = sampled_kl(policy_BT - 2.0, torch.full_like(policy_BT, -2.0), kind)
    found.sum().backward()
    assert policy_BT.grad is not None
    for t, gap in enumerate(gaps):
        back = math.exp(-gap)  # p_ref / p
        value, slope = (gap, 1.0) if kind == "k1" else (back - 1 + gap, 1 - back)
        assert found[0, t].item() == pytest.approx(value, rel=EXACT, abs=EXACT)
        assert policy_BT.grad[0, t].item() == pytest.approx(slope, rel=EXACT, abs=EXACT)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    """Rewards and their groups of two to five, mixed up; often equal to others."""
    sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    reward = st.one_of(st.floats(-10, 10), st.sampled_from([0.1, 0.7]))
    rows = draw(st.permutations([(draw(reward), group) for group, size in enumerate(sizes) for _ in range(size)]))
    return [value for value, _ in rows], [group for _, group in rows]


@settings(deadline=None)
@given(grouped(), st.sampled_from([1e-6, 1e-4, 0.5]))
def test_advantages_in_a_group(case: tuple[list[float], list[int]], eps: float) -> None:
    values, groups = case
    rewards_B, groups_B = torch.tensor(values, dtype=torch.float64), torch.tensor(groups)
    alone, same = leave_one_out(rewards_B, groups_B), equal_groups(rewards_B, groups_B)
    centred = group_advantages(rewards_B, groups_B, scale=False)
    scaled = group_advantages(rewards_B, groups_B, scale=True, eps=eps)
    for i, value in enumerate(values):
        others = [v for j, (v, g) in enumerate(zip(values, groups, strict=True)) if g == groups[i] and j != i]
        members = [*others, value]
        assert alone[i].item() == pytest.approx(value - math.fsum(others) / len(others), abs=EXACT)
        assert same[i].item() is all(other == value for other in others)
        wanted = value - math.fsum(members) / len(members)
        assert centred[i].item() == pytest.approx(wanted, abs=EXACT)
        # A rounding of 1e-15 in the mean, over eps, is 1e-9.
        assert scaled[i].item() == pytest.approx(wanted / (statistics.stdev(members) + eps), abs=1e-7)


@settings(deadline=None)
@given(ragged(2))
def test_explained_variance(columns: list[Rows]) -> None:
    returns, values = ([value for row in rows for value in row] for rows in columns)
    found = explained_variance(padded(columns[0], 50.0), padded(columns[1], -50.0), mask_of(columns[0]))
    if len(returns) < 2 or len(set(returns)) == 1:
        assert found == 0.0
        return
    whole = statistics.variance(returns)
    assume(whole > 1e-2)
    left = statistics.variance([r - v for r, v in zip(returns, values, strict=True)])
    assert found == pytest.approx(1 - left / whole, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 3, 7, 31, 100])
def test_equal_returns_leave_nothing_to_explain_however_their_mean_is_rounded(dtype: torch.dtype, count: int) -> None:
    """The variance of seven times 0.1 is 6e-17 in float32; dividing by it gave -2e15."""
    returns_BT = torch.full((1, count), 0.1, dtype=dtype)
    values_BT, mask_BT = torch.linspace(0, 1, count, dtype=dtype)[None], torch.ones(1, count, dtype=torch.bool)
    assert explained_variance(returns_BT, values_BT, mask_BT) == 0.0
    assert explained_variance(returns_BT + 1e-3 * values_BT, values_BT, mask_BT) != 0.0, "small is not equal"


# Log-probs of sequences


@settings(deadline=None)
@given(ragged(2), st.booleans(), st.sampled_from([0.0, math.inf, math.nan]))
def test_sequence_log_probs_and_their_gradient(columns: list[Rows], per_token: bool, filler: float) -> None:
    rows, weights = columns
    leaf_BT = padded(rows, filler).requires_grad_()
    found = sequence_logprobs(leaf_BT, mask_of(rows), per_token=per_token)
    weights_B = [math.fsum(row) + 0.5 for row in weights]
    (found * torch.tensor(weights_B, dtype=torch.float64)).sum().backward()
    counts = [max(1, len(row)) if per_token else 1 for row in rows]
    assert found.tolist() == pytest.approx([math.fsum(row) / n for row, n in zip(rows, counts, strict=True)], abs=EXACT)
    slopes = [[w / n] * len(row) for row, w, n in zip(rows, weights_B, counts, strict=True)]
    torch.testing.assert_close(leaf_BT.grad, padded(slopes), atol=EXACT, rtol=0)


# Losses


@settings(deadline=None)
@given(ragged(3), st.floats(0.05, 0.5), st.floats(0.05, 0.8), st.floats(1.05, 4))
def test_policy_loss_with_both_clips(columns: list[Rows], low: float, high: float, dual: float) -> None:
    """By cases: a positive advantage has a ceiling on its ratio, a negative one a floor and, by the second clip, a ceiling."""
    count = max(1, sum(map(len, columns[0])))
    total, slopes, clipped = [], [], 0
    for rows in zip(*columns, strict=True):
        slopes.append([])
        for new, old, advantage in zip(*rows, strict=True):
            ratio = math.exp(new - old)
            assume(all(abs(ratio - edge) > KINK for edge in (1 - low, 1 + high, dual)))
            held = min(ratio, 1 + high) if advantage > 0 else min(max(ratio, 1 - low), dual)
            total.append(-held * advantage)
            slopes[-1].append(-ratio * advantage / count if held == ratio else 0.0)
            clipped += abs(advantage) > KINK and (ratio > 1 + high if advantage > 0 else ratio < 1 - low)
    new_BT = padded(columns[0]).requires_grad_()
    rest = (padded(columns[1]), padded(columns[2]), mask_of(columns[0]))
    found = policy_loss(new_BT, *rest, clip=low, clip_high=high, dual_clip=dual, num_tokens=count)
    found.loss.backward()
    assert found.loss.item() == pytest.approx(math.fsum(total) / count, abs=EXACT)
    torch.testing.assert_close(new_BT.grad, padded(slopes), atol=EXACT, rtol=0)
    if all(abs(value) > KINK for row in columns[2] for value in row):
        assert found.clipped_tokens.item() == clipped


@settings(deadline=None)
@given(st.lists(st.tuples(number, number), min_size=1, max_size=6))
def test_mismatched_kl(found: list[tuple[float, float]]) -> None:
    policy_M, reference_M = (torch.tensor(column, dtype=torch.float64) for column in zip(*found, strict=True))
    mean = math.fsum(policy - reference for policy, reference in found) / len(found)
    assert mismatched_kl(policy_M, reference_M).item() == pytest.approx(max(0.0, mean), abs=EXACT)


@settings(deadline=None)
@given(st.lists(st.tuples(*[number] * 5), min_size=1, max_size=5))
def test_log_ratio_margin_and_its_gradient(found: list[tuple[float, ...]]) -> None:
    *leaves, weights_P = (torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in zip(*found, strict=True))
    margin_P = log_ratio_margin(*leaves)
    (margin_P * weights_P.detach()).sum().backward()
    for i, (chosen, rejected, ref_chosen, ref_rejected, weight) in enumerate(found):
        expected = math.fsum([chosen, -rejected, -ref_chosen, ref_rejected])
        assert margin_P[i].item() == pytest.approx(expected, abs=EXACT)
        assert leaves[0].grad is not None
        assert leaves[1].grad is not None
        assert (leaves[0].grad[i].item(), leaves[1].grad[i].item()) == (weight, -weight)
