"""Token rewards and GAE: by hand, against sums over lists, and properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.advantages import explained_variance, gae, token_rewards
from heedful.functional.masking import whiten

# float64, at most 6 terms of size below 100: rounding is below 1e-13.
EXACT = 1e-11
WIDTH = 6

number = st.floats(-3, 3, width=32)
Rows = list[list[float]]


@st.composite
def episodes(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """Rewards and values of a few episodes, none longer than WIDTH; some empty."""
    lengths = draw(st.lists(st.integers(0, WIDTH), min_size=1, max_size=4))
    rows = [[draw(st.lists(number, min_size=n, max_size=n)) for n in lengths] for _ in range(2)]
    return rows[0], rows[1]


def padded(rows: Rows, *, width: int = WIDTH, filler: float = 0.0) -> Tensor:
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows], dtype=torch.float64).reshape(len(rows), width)


def mask_of(rows: Rows, width: int = WIDTH) -> Tensor:
    return torch.tensor([[t < len(row) for t in range(width)] for row in rows])


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> tuple[list[float], list[float]]:
    """A_t = sum_k (gamma lam)^k delta_(t+k), as the paper's sum rather than the recursion."""
    last = len(rewards)
    deltas = [rewards[t] + (gamma * values[t + 1] if t + 1 < last else 0.0) - values[t] for t in range(last)]
    advantages = [math.fsum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, last)) for t in range(last)]
    return advantages, [a + v for a, v in zip(advantages, values, strict=True)]


def test_gae_by_hand() -> None:
    # gamma 1/2, lambda 1/4, so gamma lambda = 1/8.
    # delta_2 = 4 - 6 = -2;            A_2 = -2
    # delta_1 = 2 + 6/2 - 4 = 1;       A_1 = 1 - 2/8 = 0.75
    # delta_0 = 1 + 4/2 - 2 = 1;       A_0 = 1 + 0.75/8 = 1.09375
    # Second row: one token, delta = 3 - 1 = 2. Third row: no token.
    rewards_BT = padded([[1.0, 2.0, 4.0], [3.0], []], width=3, filler=99.0)
    values_BT = padded([[2.0, 4.0, 6.0], [1.0], []], width=3, filler=-99.0)
    mask_BT = mask_of([[1.0, 2.0, 4.0], [3.0], []], 3)
    found = gae(rewards_BT, values_BT, mask_BT, gamma=0.5, lam=0.25)
    assert found.advantages_BT.tolist() == [[1.09375, 0.75, -2.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert found.returns_BT.tolist() == [[3.09375, 4.75, 4.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_gae_of_answers_of_one_token() -> None:
    # The only delta of each: 3 - 1 and -2 - 2.
    found = gae(torch.tensor([[3.0], [-2.0]]), torch.tensor([[1.0], [2.0]]), torch.ones(2, 1) > 0, gamma=0.9, lam=0.5)
    assert found.advantages_BT.tolist() == [[2.0], [-4.0]]


def test_padding_in_the_middle_restarts_the_recursion() -> None:
    # Two episodes of one token in one row: neither sees the other. 1 - 2 = -1 and 4 - 6 = -2.
    mask_BT = torch.tensor([[True, False, True]])
    found = gae(torch.tensor([[1.0, 5.0, 4.0]]), torch.tensor([[2.0, 5.0, 6.0]]), mask_BT, gamma=1.0, lam=1.0)
    assert found.advantages_BT.tolist() == [[-1.0, 0.0, -2.0]]
    assert found.returns_BT.tolist() == [[1.0, 0.0, 4.0]]


@settings(deadline=None)
@given(episodes(), st.floats(0, 1), st.floats(0, 1))
def test_gae_equals_the_sum_over_lists(rows: tuple[Rows, Rows], gamma: float, lam: float) -> None:
    rewards, values = rows
    slow = [slow_gae(r, v, gamma, lam) for r, v in zip(rewards, values, strict=True)]
    for width, filler in ((WIDTH, 0.0), (WIDTH + 3, -1e9), (WIDTH, math.inf), (WIDTH + 1, math.nan)):
        rewards_BT, values_BT = (padded(part, width=width, filler=filler) for part in (rewards, values))
        found = gae(rewards_BT, values_BT, mask_of(rewards, width), gamma=gamma, lam=lam)
        for place, expected in enumerate(([a for a, _ in slow], [r for _, r in slow])):
            torch.testing.assert_close(found[place], padded(expected, width=width), atol=EXACT, rtol=0)


@settings(deadline=None)
@given(episodes())
def test_gae_without_discount_or_lambda_is_future_reward_minus_value(rows: tuple[Rows, Rows]) -> None:
    rewards, values = rows
    found = gae(padded(rewards), padded(values), mask_of(rewards), gamma=1.0, lam=1.0)
    future = [[math.fsum(row[t:]) for t in range(len(row))] for row in rewards]
    above = [[f - v for f, v in zip(fs, vs, strict=True)] for fs, vs in zip(future, values, strict=True)]
    torch.testing.assert_close(found.returns_BT, padded(future), atol=EXACT, rtol=0)
    torch.testing.assert_close(found.advantages_BT, padded(above), atol=EXACT, rtol=0)


@settings(deadline=None)
@given(episodes(), st.randoms(use_true_random=False))
def test_gae_permutes_with_its_batch(rows: tuple[Rows, Rows], random: object) -> None:
    order = list(range(len(rows[0])))
    random.shuffle(order)  # type: ignore[attr-defined]
    tensors = (padded(rows[0]), padded(rows[1]), mask_of(rows[0]))
    for straight, shuffled in zip(
        gae(*tensors, gamma=0.9, lam=0.8), gae(*(t[order] for t in tensors), gamma=0.9, lam=0.8), strict=True
    ):
        assert torch.equal(straight[order], shuffled)


def test_gae_leaves_its_inputs_alone() -> None:
    rewards_BT, values_BT = padded([[1.0, 2.0]]), padded([[3.0, 4.0]])
    copies = rewards_BT.clone(), values_BT.clone()
    gae(rewards_BT, values_BT, mask_of([[1.0, 2.0]]), gamma=1.0, lam=0.95)
    assert torch.equal(rewards_BT, copies[0])
    assert torch.equal(values_BT, copies[1])


def test_gae_gradcheck() -> None:
    rewards_BT, values_BT = padded([[1.0, -2.0, 0.5], [2.0], []], width=3), padded([[0.3, 0.1, -1.0], [4.0], []], width=3)
    mask_BT = mask_of([[1.0, -2.0, 0.5], [2.0], []], 3)
    inputs = (rewards_BT.requires_grad_(), values_BT.requires_grad_())
    assert torch.autograd.gradcheck(lambda r, v: tuple(gae(r, v, mask_BT, gamma=0.9, lam=0.7)), inputs)


def test_token_rewards_by_hand() -> None:
    # -0.1 KL each, and the score on the last kept token only: 2 - 0.1 * 3 = 1.7; -1 - 0.1 * 2 = -1.2; no token, no reward.
    kl_BT = padded([[0.5, 1.0, 3.0], [2.0], []], width=4, filler=1000.0)
    mask_BT = mask_of([[0.5, 1.0, 3.0], [2.0], []], 4)
    scores_B = torch.tensor([2.0, -1.0, 5.0], dtype=torch.float64)
    expected = padded([[-0.05, -0.1, 1.7], [-1.2], []], width=4)
    torch.testing.assert_close(token_rewards(scores_B, kl_BT, mask_BT, kl_coef=0.1), expected, atol=EXACT, rtol=0)


@settings(deadline=None)
@given(episodes(), st.floats(0, 2))
def test_token_rewards_equal_a_loop_and_ignore_padding(rows: tuple[Rows, Rows], kl_coef: float) -> None:
    kl, others = rows
    scores = [math.fsum(row) + 0.25 for row in others]
    expected = [[-kl_coef * k for k in row] for row in kl]
    for row, score in zip(expected, scores, strict=True):
        if row:
            row[-1] += score
    for width, filler in ((WIDTH, 0.0), (WIDTH + 2, math.inf), (WIDTH + 2, math.nan)):
        scores_B = torch.tensor(scores, dtype=torch.float64)
        found_BT = token_rewards(scores_B, padded(kl, width=width, filler=filler), mask_of(kl, width), kl_coef=kl_coef)
        torch.testing.assert_close(found_BT, padded(expected, width=width), atol=EXACT, rtol=0)


def test_end_of_text_gets_the_score_though_its_id_is_the_pad_id() -> None:
    # Ids [7, 2] and [7, 8, 2], padded with 2: a mask "ids != 2" would put the scores on 7 and 8.
    lengths = [2, 3]
    mask_BT = torch.tensor([[t < n for t in range(3)] for n in lengths])
    found_BT = token_rewards(torch.tensor([1.0, -1.0]), torch.zeros(2, 3), mask_BT, kl_coef=0.1)
    assert found_BT.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]


def test_token_rewards_stay_on_the_device_of_their_inputs() -> None:
    """The device "meta" has shapes and no numbers; mixing it with the processor is an error, as with a graphics card."""
    kl_BT = torch.zeros(2, 3, device="meta")
    assert token_rewards(kl_BT[:, 0], kl_BT, kl_BT == 0, kl_coef=0.1).device.type == "meta"


def test_token_rewards_gradients() -> None:
    kl_BT = padded([[0.5, 1.0], [2.0]], width=2).requires_grad_()
    scores_B = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
    mask_BT = mask_of([[0.5, 1.0], [2.0]], 2)
    token_rewards(scores_B, kl_BT, mask_BT, kl_coef=0.25).sum().backward()
    assert kl_BT.grad is not None
    assert scores_B.grad is not None
    assert kl_BT.grad.tolist() == [[-0.25, -0.25], [-0.25, 0.0]]
    assert scores_B.grad.tolist() == [1.0, 1.0]


@settings(deadline=None)
@given(st.floats(-5, 5, width=32), st.lists(st.integers(1, WIDTH), min_size=2, max_size=6))
def test_equal_rewards_teach_nothing(score: float, lengths: list[int]) -> None:
    # Values 0, no KL, lambda 1: every token has advantage `score`, which whitening takes away.
    mask_BT = torch.tensor([[t < n for t in range(WIDTH)] for n in lengths])
    zeros_BT = torch.zeros(len(lengths), WIDTH, dtype=torch.float64)
    scores_B = torch.full((len(lengths),), score, dtype=torch.float64)
    rewards_BT = token_rewards(scores_B, zeros_BT, mask_BT, kl_coef=0.1)
    advantages_BT = gae(rewards_BT, zeros_BT, mask_BT, gamma=1.0, lam=1.0).advantages_BT
    # A mean off by 1e-15, over sqrt(eps) = 1e-4, is 1e-11.
    assert whiten(advantages_BT, mask_BT).abs().max().item() < 1e-10


def test_explained_variance() -> None:
    # Returns 1, 2, 3 (variance 1). Values 1, 2, 2: errors 0, 0, 1 have variance 1/3, so 1 - 1/3 = 2/3.
    returns_BT = torch.tensor([[1.0, 2.0, 3.0, 50.0]])
    mask_BT = torch.tensor([[True, True, True, False]])
    assert explained_variance(returns_BT, torch.tensor([[1.0, 2.0, 2.0, 0.0]]), mask_BT) == pytest.approx(2 / 3)
    assert explained_variance(returns_BT, returns_BT, mask_BT) == 1.0
    assert explained_variance(returns_BT, torch.zeros(1, 4), mask_BT) == pytest.approx(0.0)
    assert explained_variance(torch.ones(1, 4), torch.zeros(1, 4), mask_BT) == 0.0
    assert explained_variance(returns_BT, returns_BT, torch.tensor([[True, False, False, False]])) == 0.0
    # Two tokens are enough. Returns 1, 3 have variance 2; values 1, 2: errors 0, 1 have variance 1/2, so 1 - 1/4 = 3/4.
    found = explained_variance(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[True, True]]))
    assert found == pytest.approx(0.75)


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(ShapeError, match=r"values_BT \(2, 3\)"):
        gae(torch.zeros(2, 4), torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.bool), gamma=1.0, lam=1.0)
    with pytest.raises(ShapeError, match=r"response_mask_BT \(2, 3\)"):
        token_rewards(torch.zeros(2), torch.zeros(2, 4), torch.ones(2, 3, dtype=torch.bool), kl_coef=0.1)


def test_one_score_is_not_spread_over_all_answers() -> None:
    zeros_BT = torch.zeros(2, 3)
    with pytest.raises(ShapeError, match=r"scores_B \(1,\), rows_B \(2,\)"):
        token_rewards(torch.ones(1), zeros_BT, torch.ones(2, 3, dtype=torch.bool), kl_coef=0.1)


def test_answers_of_one_token_earn_their_score_and_their_kl() -> None:
    found = token_rewards(
        torch.tensor([1.0, -2.0]), torch.tensor([[0.5], [0.0]]), torch.ones(2, 1, dtype=torch.bool), kl_coef=0.1
    )
    assert found[:, 0].tolist() == pytest.approx([0.95, -2.0])


def test_returns_that_differ_by_rounding_only_are_equal_at_any_scale() -> None:
    """A float32 near 1000 is rounded to 6e-5: such a spread is nothing that values could explain."""
    returns_BT = torch.full((1, 4), 1000.0)
    returns_BT[0, 2] = torch.nextafter(returns_BT[0, 2], torch.tensor(2000.0))
    assert float(returns_BT.std()) > 0
    assert explained_variance(returns_BT, torch.arange(4.0)[None], torch.ones(1, 4, dtype=torch.bool)) == 0
