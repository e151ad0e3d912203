"""The PPO losses: by hand, against a loop that knows each case's gradient, and properties."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.losses.ppo import LOG_RATIO_LIMIT, entropy_bonus, kl_loss, policy_loss, value_loss

# float64 sums of at most 24 terms of size below 100.
EXACT = 1e-11
# At a kink the derivative is one of two: cases nearer than this to one are left out.
KINK = 1e-6
WIDTH = 6

number = st.floats(-3, 3, width=32)
Rows = list[list[float]]


@dataclass
class Tokens:
    """Rows of unequal length: log-probs, old log-probs, advantages (or values, old values, returns)."""

    new: Rows
    old: Rows
    target: Rows

    @property
    def count(self) -> int:
        return max(1, sum(map(len, self.new)))


@st.composite
def batches(draw: st.DrawFn) -> Tokens:
    lengths = draw(st.lists(st.integers(0, WIDTH), min_size=1, max_size=4))
    return Tokens(*([draw(st.lists(number, min_size=n, max_size=n)) for n in lengths] for _ in range(3)))


def padded(rows: Rows, *, width: int = WIDTH, filler: float = 0.0) -> Tensor:
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows], dtype=torch.float64).reshape(len(rows), width)


def mask_of(rows: Rows, width: int = WIDTH) -> Tensor:
    return torch.tensor([[t < len(row) for t in range(width)] for row in rows])


def one(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


HERE = torch.tensor([[True]])


def slow_policy(new: float, old: float, advantage: float, low: float, high: float) -> tuple[float, float, bool]:
    """One token's loss, its derivative by the log-prob, and whether it was clipped; by cases, without a minimum."""
    ratio = math.exp(new - old)
    if advantage > 0 and ratio > 1 + high:
        return -(1 + high) * advantage, 0.0, True
    if advantage < 0 and ratio < 1 - low:
        return -(1 - low) * advantage, 0.0, True
    return -ratio * advantage, -ratio * advantage, False


def slow_value(new: float, old: float, goal: float, clip: float) -> tuple[float, float]:
    """One token's loss and its derivative by the value, by cases."""
    near = old + clip if new > old + clip else old - clip if new < old - clip else new
    if abs(near - goal) > abs(new - goal):
        return 0.5 * (near - goal) ** 2, 0.0
    return 0.5 * (new - goal) ** 2, new - goal


def test_policy_loss_by_hand() -> None:
    # ratio 1.5, A = 2: clipped to 1.2 -> 2.4. ratio 0.5, A = 2: min(1, 1.6) = 1. ratio 0.5, A = -1: min(-0.5, -0.8) = -0.8.
    # ratio 1.5, A = -1: min(-1.5, -1.2) = -1.5. Sum 1.1, over 4 tokens 0.275, negative: it is minimised. Two are clipped.
    # k3: 0.5 - log 1.5 = 0.094535 twice, -0.5 - log 0.5 = 0.193147 twice: 0.575364.
    logprobs_BT = torch.tensor([[1.5, 0.5], [0.5, 1.5]], dtype=torch.float64).log().requires_grad_()
    advantages_BT = torch.tensor([[2.0, 2.0], [-1.0, -1.0]], dtype=torch.float64)
    mask_BT = torch.ones(2, 2, dtype=torch.bool)
    found = policy_loss(logprobs_BT, torch.zeros_like(logprobs_BT), advantages_BT, mask_BT, clip=0.2, num_tokens=4)
    assert found.loss.item() == pytest.approx(-0.275, abs=EXACT)
    assert found.clipped_tokens.item() == 2
    assert found.update_kl.item() == pytest.approx(0.575364, abs=1e-6)
    found.loss.backward()
    # -ratio A / 4 where the plain side is taken, else 0: -0.5 * 2 / 4 = -0.25 and 1.5 / 4 = 0.375.
    assert logprobs_BT.grad is not None
    expected = torch.tensor([[0.0, -0.25], [0.0, 0.375]], dtype=torch.float64)
    torch.testing.assert_close(logprobs_BT.grad, expected, atol=EXACT, rtol=0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient"),
    [(1.3, 1.0, False), (0.7, 1.0, True), (0.7, -1.0, False), (1.3, -1.0, True), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_only_the_clipped_side_has_no_gradient(ratio: float, advantage: float, gradient: bool) -> None:
    logprob_BT = one(math.log(ratio)).requires_grad_()
    found = policy_loss(logprob_BT, one(0.0), one(advantage), HERE, clip=0.2, num_tokens=1)
    found.loss.backward()
    assert logprob_BT.grad is not None
    assert logprob_BT.grad.item() == pytest.approx(-ratio * advantage if gradient else 0.0, abs=EXACT)
    assert found.clipped_tokens.item() == (0 if gradient else 1)


def test_clip_high_moves_the_upper_side_only() -> None:
    for ratio, advantage, expected in ((1.25, 1.0, -1.25), (1.4, 1.0, -1.28), (0.7, -1.0, 0.8)):
        found = policy_loss(one(math.log(ratio)), one(0.0), one(advantage), HERE, clip=0.2, clip_high=0.28, num_tokens=1)
        assert found.loss.item() == pytest.approx(expected, abs=EXACT)


@settings(deadline=None)
@given(batches(), st.floats(0.05, 0.5), st.one_of(st.none(), st.floats(0.05, 0.8)))
def test_policy_loss_equals_a_loop(tokens: Tokens, clip: float, clip_high: float | None) -> None:
    high = clip if clip_high is None else clip_high
    flat = [list(zip(*rows, strict=True)) for rows in zip(tokens.new, tokens.old, tokens.target, strict=True)]
    for new, old, _ in (token for row in flat for token in row):
        ratio = math.exp(new - old)
        assume(abs(ratio - (1 - clip)) > KINK and abs(ratio - (1 + high)) > KINK)
    slow = [[slow_policy(*token, clip, high) for token in row] for row in flat]
    num_tokens = tokens.count
    logprobs_BT = padded(tokens.new).requires_grad_()
    rest = (padded(tokens.old), padded(tokens.target), mask_of(tokens.new))
    found = policy_loss(logprobs_BT, *rest, clip=clip, clip_high=clip_high, num_tokens=num_tokens)
    found.loss.backward()
    assert found.loss.item() == pytest.approx(math.fsum(t[0] for row in slow for t in row) / num_tokens, abs=EXACT)
    assert logprobs_BT.grad is not None
    expected_BT = padded([[t[1] / num_tokens for t in row] for row in slow])
    torch.testing.assert_close(logprobs_BT.grad, expected_BT, atol=EXACT, rtol=0)
    # A tiny advantage can vanish in the product with the ratio; then both sides are equal and neither is "clipped".
    if all(abs(a) > KINK for row in tokens.target for a in row):
        assert found.clipped_tokens.item() == sum(t[2] for row in slow for t in row)
    drift = math.fsum(math.exp(n - o) - 1 - (n - o) for row in flat for n, o, _ in row)
    assert found.update_kl.item() == pytest.approx(drift, abs=1e-9)
    assert found.update_kl.item() >= -EXACT


@settings(deadline=None)
@given(batches(), st.sampled_from([-math.inf, math.inf, math.nan, 1e9, -1e9]), st.integers(0, 4))
def test_padding_changes_no_policy_loss_or_gradient(tokens: Tokens, filler: float, more: int) -> None:
    found = []
    for width, garbage in ((WIDTH, 0.0), (WIDTH + more, filler)):
        logprobs_BT = padded(tokens.new, width=width, filler=garbage).requires_grad_()
        rest = [padded(rows, width=width, filler=garbage) for rows in (tokens.old, tokens.target)]
        loss = policy_loss(logprobs_BT, *rest, mask_of(tokens.new, width), clip=0.2, num_tokens=tokens.count)
        loss.loss.backward()
        assert logprobs_BT.grad is not None
        assert not logprobs_BT.grad[~mask_of(tokens.new, width)].any(), "padding pulls on the policy"
        found.append((*(float(part.detach()) for part in loss), logprobs_BT.grad[:, :WIDTH]))
    assert found[0][:3] == pytest.approx(found[1][:3], abs=EXACT)
    torch.testing.assert_close(found[0][3], found[1][3], atol=EXACT, rtol=0)


@settings(deadline=None)
@given(batches())
def test_ratio_one_gives_the_unclipped_policy_gradient(tokens: Tokens) -> None:
    logprobs_BT = padded(tokens.new).requires_grad_()
    found = policy_loss(
        logprobs_BT, padded(tokens.new), padded(tokens.target), mask_of(tokens.new), clip=0.2, num_tokens=tokens.count
    )
    found.loss.backward()
    torch.testing.assert_close(logprobs_BT.grad, -padded(tokens.target) / tokens.count, atol=EXACT, rtol=0)
    assert found.clipped_tokens.item() == 0
    assert found.update_kl.item() == 0


@settings(deadline=None)
@given(batches(), st.integers(1, 3))
def test_accumulated_parts_equal_the_whole_batch(tokens: Tokens, size: int) -> None:
    """Parts of unequal length, each divided by the tokens of the whole: losses and gradients add up to one batch."""
    mask_BT = mask_of(tokens.new)

    def losses(new_BT: Tensor, rows: slice) -> list[Tensor]:
        old_BT, target_BT, kept_BT = padded(tokens.old)[rows], padded(tokens.target)[rows], mask_BT[rows]
        return [
            policy_loss(new_BT[rows], old_BT, target_BT, kept_BT, clip=0.2, num_tokens=tokens.count).loss,
            value_loss(new_BT[rows], old_BT, target_BT, kept_BT, clip=0.2, num_tokens=tokens.count),
            entropy_bonus(new_BT[rows], kept_BT, num_tokens=tokens.count),
        ]

    whole_BT, parts_BT = padded(tokens.new).requires_grad_(), padded(tokens.new).requires_grad_()
    whole = losses(whole_BT, slice(None))
    sum(whole).backward()  # type: ignore[union-attr]
    sums = [0.0, 0.0, 0.0]
    for start in range(0, len(tokens.new), size):
        part = losses(parts_BT, slice(start, start + size))
        sum(part).backward()  # type: ignore[union-attr]
        sums = [total + value.item() for total, value in zip(sums, part, strict=True)]
    assert sums == pytest.approx([value.item() for value in whole], abs=EXACT)
    torch.testing.assert_close(parts_BT.grad, whole_BT.grad, atol=EXACT, rtol=0)


@settings(deadline=None)
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(tokens: Tokens, random: object) -> None:
    order = list(range(len(tokens.new)))
    random.shuffle(order)  # type: ignore[attr-defined]
    parts = [padded(tokens.new), padded(tokens.old), padded(tokens.target), mask_of(tokens.new)]
    shuffled = [part[order] for part in parts]
    first, second = (policy_loss(*p, clip=0.2, num_tokens=tokens.count).loss.item() for p in (parts, shuffled))
    assert first == pytest.approx(second, abs=EXACT)
    first, second = (value_loss(*p, clip=0.2, num_tokens=tokens.count).item() for p in (parts, shuffled))
    assert first == pytest.approx(second, abs=EXACT)


def test_gradients_reach_the_new_numbers_only() -> None:
    leaves = [one(value).requires_grad_() for value in (0.1, 0.0, 1.0)]
    policy_loss(*leaves, HERE, clip=0.2, num_tokens=1).loss.backward()
    assert [leaf.grad is not None for leaf in leaves] == [True, False, False]
    leaves = [one(value).requires_grad_() for value in (0.1, 0.0, 1.0)]
    value_loss(*leaves, HERE, clip=0.2, num_tokens=1).backward()
    assert [leaf.grad is not None for leaf in leaves] == [True, False, False]
    found = policy_loss(one(0.1).requires_grad_(), one(0.0), one(1.0), HERE, clip=0.2, num_tokens=1)
    assert not found.clipped_tokens.requires_grad
    assert not found.update_kl.requires_grad


def test_a_huge_log_ratio_stays_finite_in_float32() -> None:
    for gap, advantage in ((500.0, -1.0), (-500.0, -1.0), (500.0, 1.0), (-500.0, 1.0)):
        logprob_BT = torch.tensor([[gap]], requires_grad=True)
        found = policy_loss(logprob_BT, torch.zeros(1, 1), torch.tensor([[advantage]]), HERE, clip=0.2, num_tokens=1)
        found.loss.backward()
        assert torch.isfinite(found.loss)
        assert torch.isfinite(found.update_kl)
        assert logprob_BT.grad is not None
        assert torch.isfinite(logprob_BT.grad).all()
    assert found.update_kl.item() == pytest.approx(math.exp(-LOG_RATIO_LIMIT) - 1 + LOG_RATIO_LIMIT, rel=1e-6)


def test_value_loss_by_hand() -> None:
    # V 1.0, old 0.5, clip 0.2, so the clipped value is 0.7.
    # R = 2: max((1 - 2)^2, (0.7 - 2)^2) = 1.69, the clipped side: no gradient.
    # R = 0: max(1, 0.49) = 1, the plain side: gradient (1 - 0) / 3.
    # V 0.6 stays inside: (0.6 - 2)^2 = 1.96, gradient -1.4 / 3. Sum 4.65, half of it over 3 tokens: 0.775.
    values_BT = torch.tensor([[1.0, 1.0, 0.6]], dtype=torch.float64, requires_grad=True)
    old_BT = torch.full((1, 3), 0.5, dtype=torch.float64)
    returns_BT = torch.tensor([[2.0, 0.0, 2.0]], dtype=torch.float64)
    loss = value_loss(values_BT, old_BT, returns_BT, torch.ones(1, 3, dtype=torch.bool), clip=0.2, num_tokens=3)
    loss.backward()
    assert loss.item() == pytest.approx(0.775, abs=EXACT)
    expected = torch.tensor([[0.0, 1 / 3, -1.4 / 3]], dtype=torch.float64)
    torch.testing.assert_close(values_BT.grad, expected, atol=EXACT, rtol=0)


@settings(deadline=None)
@given(batches(), st.floats(0.05, 1))
def test_value_loss_equals_a_loop(tokens: Tokens, clip: float) -> None:
    flat = [list(zip(*rows, strict=True)) for rows in zip(tokens.new, tokens.old, tokens.target, strict=True)]
    for new, old, goal in (token for row in flat for token in row):
        near = min(max(new, old - clip), old + clip)
        assume(abs(abs(new - old) - clip) > KINK)
        assume(near == new or abs(abs(near - goal) - abs(new - goal)) > KINK)
    slow = [[slow_value(*token, clip) for token in row] for row in flat]
    for width, filler in ((WIDTH, 0.0), (WIDTH + 2, 1e6)):
        values_BT = padded(tokens.new, width=width, filler=filler).requires_grad_()
        rest = [padded(rows, width=width, filler=-filler) for rows in (tokens.old, tokens.target)]
        loss = value_loss(values_BT, *rest, mask_of(tokens.new, width), clip=clip, num_tokens=tokens.count)
        loss.backward()
        assert loss.item() == pytest.approx(math.fsum(t[0] for row in slow for t in row) / tokens.count, abs=EXACT)
        expected_BT = padded([[t[1] / tokens.count for t in row] for row in slow], width=width)
        torch.testing.assert_close(values_BT.grad, expected_BT, atol=EXACT, rtol=0)


def test_infinite_padding_pulls_on_no_value() -> None:
    mask_BT = torch.tensor([[True, False]])
    for filler in (math.inf, math.nan):
        values_BT = padded([[1.0]], width=2, filler=filler).requires_grad_()
        rest = padded([[0.5]], width=2, filler=filler), padded([[0.0]], width=2, filler=filler)
        loss = value_loss(values_BT, *rest, mask_BT, clip=1.0, num_tokens=1)
        loss.backward()
        assert loss.item() == 0.5
        assert values_BT.grad is not None
        assert values_BT.grad.tolist() == [[1.0, 0.0]]


@settings(deadline=None)
@given(batches(), st.sampled_from([0.0, math.inf, math.nan, 1e9]))
def test_entropy_bonus_is_a_sum_over_response_tokens(tokens: Tokens, filler: float) -> None:
    entropy_BT = padded(tokens.new, filler=filler).requires_grad_()
    bonus = entropy_bonus(entropy_BT, mask_of(tokens.new), num_tokens=10)
    bonus.backward()
    assert bonus.item() == pytest.approx(math.fsum(value for row in tokens.new for value in row) / 10, abs=EXACT)
    torch.testing.assert_close(entropy_BT.grad, mask_of(tokens.new).double() / 10, atol=EXACT, rtol=0)


def test_gradcheck() -> None:
    # Away from the kinks: ratios 1.5, 0.5, 1.05 with clip 0.2; values 0.5, 0.04 beyond and inside a band of 0.2.
    mask_BT = torch.tensor([[True, True, True, False]])
    logprobs_BT = torch.tensor([[1.5, 0.5, 1.05, 9.0]], dtype=torch.float64).log().requires_grad_()
    advantages_BT = torch.tensor([[-1.0, 2.0, 0.7, 3.0]], dtype=torch.float64)
    zeros_BT = torch.zeros_like(advantages_BT)
    assert torch.autograd.gradcheck(
        lambda x: policy_loss(x, zeros_BT, advantages_BT, mask_BT, clip=0.2, num_tokens=7).loss, logprobs_BT
    )
    values_BT = torch.tensor([[0.5, -0.5, 0.04, 9.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: value_loss(x, zeros_BT, advantages_BT, mask_BT, clip=0.2, num_tokens=7), values_BT
    )


def test_shapes_that_differ_are_named() -> None:
    wide, narrow = torch.zeros(2, 4), torch.zeros(2, 3)
    mask_BT = torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"advantages_BT \(2, 3\)"):
        policy_loss(wide, wide, narrow, mask_BT, clip=0.2, num_tokens=1)
    with pytest.raises(ShapeError, match=r"returns_BT \(2, 3\)"):
        value_loss(wide, wide, narrow, mask_BT, clip=0.2, num_tokens=1)
    with pytest.raises(ShapeError, match=r"entropy_BT \(2, 3\)"):
        entropy_bonus(narrow, mask_BT, num_tokens=1)


# Dual clip, and what an advantage may be scaled by


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "gradient"),
    [
        (math.log(5.0), -1.0, 3.0, 0.0),  # 5 would be the loss without the second clip
        (math.log(2.0), -1.0, 2.0, 2.0),  # within it: ratio times |A|, and its derivative
        (math.log(5.0), 1.0, -1.2, 0.0),  # a positive advantage has only the first clip
        (math.log(0.5), -1.0, 0.8, 0.0),
    ],
)
def test_dual_clip_by_hand(log_ratio: float, advantage: float, loss: float, gradient: float) -> None:
    new = one(log_ratio).requires_grad_()
    found = policy_loss(new, one(0.0), one(advantage), HERE, clip=0.2, num_tokens=1, dual_clip=3.0).loss
    assert float(found) == pytest.approx(loss, abs=EXACT)
    found.backward()
    assert new.grad is not None
    assert float(new.grad) == pytest.approx(gradient, abs=EXACT)


@given(batches(), st.floats(0.01, 10))
def test_the_loss_is_homogeneous_in_the_advantages(case: Tokens, weight: float) -> None:
    """What the averages over sequences rest on: a weight may be put on the advantage."""
    new, old, mask = padded(case.new), padded(case.old), mask_of(case.new)
    options = {"clip": 0.2, "clip_high": 0.28, "dual_clip": 3.0, "num_tokens": case.count}
    plain = policy_loss(new, old, padded(case.target), mask, **options).loss  # type: ignore[arg-type]
    scaled = policy_loss(new, old, weight * padded(case.target), mask, **options).loss  # type: ignore[arg-type]
    assert float(scaled) == pytest.approx(weight * float(plain), rel=1e-9, abs=EXACT)


# KL in the loss


@given(batches())
def test_kl_loss_and_gradient_equal_a_loop(case: Tokens) -> None:
    new = padded(case.new).requires_grad_()
    weights = padded(case.target).abs()
    found = kl_loss(new, padded(case.old, filler=math.nan), mask_of(case.new), weights, num_tokens=case.count)
    places = [(i, t) for i, row in enumerate(case.new) for t in range(len(row))]
    slow = math.fsum(abs(case.target[i][t]) * (case.new[i][t] - case.old[i][t]) ** 2 / 2 for i, t in places) / case.count
    assert float(found.detach()) == pytest.approx(slow, abs=EXACT)
    found.backward()
    assert new.grad is not None
    expected = torch.zeros_like(new)
    for i, t in places:
        expected[i, t] = abs(case.target[i][t]) * (case.new[i][t] - case.old[i][t]) / case.count
    torch.testing.assert_close(new.grad, expected.detach(), atol=EXACT, rtol=0)


def test_the_kl_loss_has_the_gradient_of_the_kl() -> None:
    """Summed over a small vocabulary with the policy's probabilities, as sampling does on average."""
    logits = torch.tensor([0.3, -0.2, 1.1, 0.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([1.0, 0.5, -0.5, 0.2], dtype=torch.float64).log_softmax(0)
    exact = (logits.softmax(0) * (logits.log_softmax(0) - reference)).sum()
    (wanted,) = torch.autograd.grad(exact, logits)
    probabilities = logits.detach().softmax(0)
    weights = (4 * probabilities)[:, None]  # each token as often as it is drawn
    here = torch.ones(4, 1, dtype=torch.bool)
    estimate = kl_loss(logits.log_softmax(0)[:, None], reference[:, None], here, weights, num_tokens=4)
    (found,) = torch.autograd.grad(estimate, logits)
    torch.testing.assert_close(found, wanted, atol=EXACT, rtol=0)
