"""Cross-entropy of completions and sums over them: by hand, against a loop and TRL, and properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.logprobs import sequence_logprobs
from heedful.functional.losses.completion import completion_loss

# float64 sums of at most 24 terms of size below 50.
EXACT = 1e-12
WIDTH = 6

Rows = list[list[float]]
batches = st.lists(st.lists(st.floats(-50, 0), max_size=WIDTH), min_size=1, max_size=4)


def padded(rows: Rows, *, width: int = WIDTH, filler: float = 0.0) -> tuple[Tensor, Tensor]:
    values = torch.tensor([row + [filler] * (width - len(row)) for row in rows], dtype=torch.float64)
    mask = torch.tensor([[t < len(row) for t in range(width)] for row in rows])
    return values.reshape(len(rows), width).requires_grad_(), mask


def test_by_hand() -> None:
    # Tokens 1, 2 and 6 nats: 9 over 3 tokens is 3. A mean of the rows' means would be (1.5 + 6) / 2 = 3.75.
    logprobs_BT, mask_BT = padded([[-1.0, -2.0], [-6.0]], width=2, filler=-100.0)
    assert completion_loss(logprobs_BT, mask_BT, num_tokens=3).item() == 3.0
    assert sequence_logprobs(logprobs_BT, mask_BT).tolist() == [-3.0, -6.0]
    assert sequence_logprobs(logprobs_BT, mask_BT, per_token=True).tolist() == [-1.5, -6.0]


@settings(deadline=None)
@given(batches)
def test_loss_and_gradient_equal_a_loop(rows: Rows) -> None:
    count = max(1, sum(map(len, rows)))
    logprobs_BT, mask_BT = padded(rows)
    loss = completion_loss(logprobs_BT, mask_BT, num_tokens=count)
    loss.backward()
    assert loss.item() == pytest.approx(-math.fsum(value for row in rows for value in row) / count, abs=EXACT)
    assert logprobs_BT.grad is not None
    for row, pushes in zip(rows, logprobs_BT.grad.tolist(), strict=True):
        assert pushes == pytest.approx([-1 / count] * len(row) + [0.0] * (WIDTH - len(row)), abs=EXACT)


def test_equals_trl() -> None:
    """TRL 1.16.0, loss "sft" of DPOTrainer._compute_loss on the chosen rows of test_preference_losses.py."""
    rows = [[-0.821, -2.586, -1.97], [-1.682, -2.289, -2.278, -0.189, -0.173], [-0.113, -0.367]]
    logprobs_BT, mask_BT = padded(rows)
    loss = completion_loss(logprobs_BT, mask_BT, num_tokens=10)
    loss.backward()
    assert loss.item() == pytest.approx(1.2468, abs=EXACT)
    assert logprobs_BT.grad is not None
    assert logprobs_BT.grad[:, 0].tolist() == pytest.approx([-0.1, -0.1, -0.1], abs=EXACT)


@settings(deadline=None)
@given(batches, st.sampled_from([-math.inf, math.nan, 1e9]), st.integers(0, 4))
def test_padding_changes_nothing(rows: Rows, filler: float, more: int) -> None:
    plain, wide = padded(rows), padded(rows, width=WIDTH + more, filler=filler)
    count = max(1, sum(map(len, rows)))
    losses = [completion_loss(*batch, num_tokens=count) for batch in (plain, wide)]
    sums = [sequence_logprobs(*batch).sum() for batch in (plain, wide)]
    for pair in (losses, sums):
        assert pair[0].item() == pytest.approx(pair[1].item(), abs=EXACT)
        pair[1].backward()
    assert wide[0].grad is not None
    assert not wide[0].grad[~wide[1]].any(), "padding gets no gradient"


@settings(deadline=None)
@given(batches, st.integers(0, 3))
def test_accumulated_parts_equal_one_batch(rows: Rows, cut: int) -> None:
    count = max(1, sum(map(len, rows)))
    whole = completion_loss(*padded(rows), num_tokens=count).item()
    parts = [completion_loss(*padded(part), num_tokens=count).item() for part in (rows[:cut], rows[cut:]) if part]
    assert whole == pytest.approx(math.fsum(parts), abs=EXACT)


def test_a_response_without_tokens_counts_nothing() -> None:
    empty = padded([[]])
    assert sequence_logprobs(*empty, per_token=True).tolist() == [0.0]
    assert completion_loss(*empty, num_tokens=1).item() == 0.0


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(ShapeError, match=r"response_mask_BT \(2, 3\)"):
        completion_loss(torch.zeros(2, 2), torch.ones(2, 3) > 0, num_tokens=1)
    with pytest.raises(ShapeError, match=r"response_mask_BT \(2, 3\)"):
        sequence_logprobs(torch.zeros(2, 2), torch.ones(2, 3) > 0)
