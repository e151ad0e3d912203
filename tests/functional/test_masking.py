"""masked_mean and whiten against lists and math, and what padding may and may not do."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.masking import masked_mean, spread, token_weights, whiten

# float64 sums of a few dozen numbers of size 1 to 10: rounding stays below 1e-13; ten times that for the division.
EXACT = 1e-12
# whiten adds 1e-8 to the variance, which the formula in the test leaves out: a relative 1e-8 / (2 variance), variance >= 0.01.
WHITEN_EPS = 1e-6

FLOAT32 = 1e-5  # token weights are float32

number = st.floats(-5, 5, width=32)


@st.composite
def ragged(draw: st.DrawFn, min_total: int = 0) -> list[list[float]]:
    rows = draw(st.lists(st.lists(number, max_size=5), min_size=1, max_size=4))
    while sum(map(len, rows)) < min_total:
        rows.append([draw(number)])
    return rows


def padded(rows: list[list[float]], *, width: int = 6, filler: float = 0.0) -> tuple[Tensor, Tensor]:
    values_BT = torch.tensor([row + [filler] * (width - len(row)) for row in rows], dtype=torch.float64)
    mask_BT = torch.tensor([[t < len(row) for t in range(width)] for row in rows])
    return values_BT, mask_BT


def slow_mean(rows: list[list[float]]) -> float:
    flat = [value for row in rows for value in row]
    return math.fsum(flat) / len(flat) if flat else 0.0


def slow_sd(rows: list[list[float]]) -> float:
    flat = [value for row in rows for value in row]
    mean = slow_mean(rows)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in flat) / (len(flat) - 1))


def test_masked_mean_by_hand() -> None:
    # (1 + 2 + 6) / 3 = 3: the 100 and the -7 are padding.
    values_BT = torch.tensor([[1.0, 2.0, 100.0], [6.0, -7.0, -7.0]])
    mask_BT = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(values_BT, mask_BT).item() == 3.0


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.full((2, 3), 9.0), torch.zeros(2, 3, dtype=torch.bool)).item() == 0.0


def test_masked_mean_gradient_is_one_over_the_count() -> None:
    values_BT, mask_BT = padded([[1.0, 2.0], [6.0]], width=3, filler=math.inf)
    values_BT.requires_grad_()
    masked_mean(values_BT, mask_BT).backward()
    assert values_BT.grad is not None
    assert values_BT.grad.tolist() == [[1 / 3, 1 / 3, 0.0], [1 / 3, 0.0, 0.0]]


@settings(deadline=None)
@given(ragged())
def test_masked_mean_equals_lists_and_ignores_padding(rows: list[list[float]]) -> None:
    for width, filler in ((5, 0.0), (9, 1e30), (6, math.inf), (6, math.nan)):
        assert masked_mean(*padded(rows, width=width, filler=filler)).item() == pytest.approx(slow_mean(rows), abs=EXACT)


def test_whiten_by_hand() -> None:
    # 1, 3, 5, 7: mean 4, squared distances 9 + 1 + 1 + 9 = 20, unbiased variance 20 / 3, sd 2.581989.
    # (1 - 4) / 2.581989 = -1.161895, (3 - 4) / 2.581989 = -0.387298; without the shift each is 4 more.
    values_BT, mask_BT = padded([[1.0, 3.0], [5.0], [7.0]], width=3, filler=50.0)
    expected = [[-1.161895, -0.387298, 0.0], [0.387298, 0.0, 0.0], [1.161895, 0.0, 0.0]]
    torch.testing.assert_close(whiten(values_BT, mask_BT), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    kept = [[2.838105, 3.612702, 0.0], [4.387298, 0.0, 0.0], [5.161895, 0.0, 0.0]]
    unshifted_BT = whiten(values_BT, mask_BT, shift_mean=False)
    torch.testing.assert_close(unshifted_BT, torch.tensor(kept, dtype=torch.float64), atol=1e-6, rtol=0)


@settings(deadline=None)
@given(ragged(min_total=2), st.booleans())
def test_whiten_equals_lists_and_ignores_padding(rows: list[list[float]], shift_mean: bool) -> None:
    mean, sd = slow_mean(rows), slow_sd(rows)
    if sd < 0.1:
        return
    expected = [[(value - mean) / sd + (0 if shift_mean else mean) for value in row] for row in rows]
    wanted_BT, _ = padded(expected)
    for filler in (0.0, -1e30, math.inf, math.nan):
        found_BT = whiten(*padded(rows, filler=filler), shift_mean=shift_mean)
        torch.testing.assert_close(found_BT, wanted_BT, atol=WHITEN_EPS, rtol=0)


@settings(deadline=None)
@given(ragged(min_total=2), st.randoms(use_true_random=False))
def test_whiten_permutes_with_its_batch(rows: list[list[float]], random: object) -> None:
    values_BT, mask_BT = padded(rows)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    torch.testing.assert_close(whiten(values_BT, mask_BT)[order], whiten(values_BT[order], mask_BT[order]))


@settings(deadline=None)
@given(st.floats(-10, 10, width=32), st.integers(1, 40))
def test_equal_values_whiten_to_zero(value: float, count: int) -> None:
    values_BT = torch.full((1, count), value)
    # The mean of equal numbers is off by a few units in the last place (1e-6 at 10); over sqrt(eps) = 1e-4 that is 1e-2.
    assert whiten(values_BT, torch.ones(1, count, dtype=torch.bool)).abs().max().item() <= 0.02


def test_a_single_value_whitens_to_zero() -> None:
    found_BT = whiten(torch.tensor([[3.7, 9.0]]), torch.tensor([[True, False]]))
    assert found_BT.tolist() == [[0.0, 0.0]]


def test_whiten_gradcheck() -> None:
    values_BT, mask_BT = padded([[1.0, -3.0, 0.5], [2.0], []], width=3, filler=7.0)
    for shift_mean in (True, False):
        assert torch.autograd.gradcheck(lambda v, s=shift_mean: whiten(v, mask_BT, shift_mean=s), values_BT.requires_grad_())


def test_shapes_that_differ_are_named() -> None:
    mask_BT = torch.ones(2, 4, dtype=torch.bool)
    for function in (masked_mean, whiten):
        with pytest.raises(ShapeError, match=r"values_BT \(2, 3\), mask_BT \(2, 4\)"):
            function(torch.zeros(2, 3), mask_BT)


def test_spread_keeps_dtype_and_device() -> None:
    mask_BT = torch.tensor([[True, False], [True, True]])
    assert spread(torch.ones(3, dtype=torch.float64), mask_BT).dtype == torch.float64
    # The device "meta" has shapes and no numbers, and does not mix with the processor.
    assert spread(torch.ones(3, device="meta"), mask_BT.to("meta")).device.type == "meta"


# What a loss is a mean over


def mean_of(values: torch.Tensor, mask: torch.Tensor, average: str, max_tokens: int = 8) -> float:
    weights = token_weights(mask, average, max_tokens=max_tokens)  # type: ignore[arg-type]
    return float((weights * values).sum() / mask.sum())


def test_token_weights_by_hand() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    values = torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0]])
    assert mean_of(values, mask, "token") == pytest.approx(16 / 4)
    assert mean_of(values, mask, "sequence") == pytest.approx((2 + 10) / 2)
    assert mean_of(values, mask, "constant", max_tokens=8) == pytest.approx(16 / (2 * 8))


@given(ragged(min_total=1))
def test_averages_equal_a_loop(rows: list[list[float]]) -> None:
    values, mask = padded(rows, filler=float("9e9"))
    values = torch.where(mask, values, torch.zeros_like(values)).float()
    per_sequence = [math.fsum(row) / len(row) if row else 0.0 for row in rows]
    assert mean_of(values, mask, "token") == pytest.approx(slow_mean(rows), abs=FLOAT32)
    assert mean_of(values, mask, "sequence") == pytest.approx(math.fsum(per_sequence) / len(rows), abs=FLOAT32)
    assert mean_of(values, mask, "constant") == pytest.approx(math.fsum(map(math.fsum, rows)) / (8 * len(rows)), abs=FLOAT32)
    for average in ("token", "sequence", "constant"):
        weights = token_weights(mask, average, max_tokens=8)  # type: ignore[arg-type]
        assert weights.dtype == torch.float32
        assert not weights[~mask].any()


def test_a_sequence_without_a_token_weighs_nothing_and_is_counted() -> None:
    mask = torch.tensor([[True, True], [False, False]])
    assert mean_of(torch.tensor([[4.0, 4.0], [9.0, 9.0]]), mask, "sequence") == pytest.approx(2)
