"""The implicit Q-learning losses: by hand, against a loop that knows each case's gradient, and properties."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.losses.ilql import (
    advantage_weighted,
    cql_loss,
    expectile_loss,
    ilql_loss,
    next_values,
    polyak,
    td_loss,
)
from heedful.functional.masking import spread

# float64 sums of at most 24 terms of size below 100.
EXACT = 1e-11
WIDTH = 6

number = st.floats(-3, 3, width=32)
Rows = list[list[float]]
COLUMNS = ("q", "value", "target", "reward", "logprob")


@dataclass
class Episodes:
    """Rows of unequal length, a column for each input."""

    columns: dict[str, Rows]

    @property
    def count(self) -> int:
        return max(1, sum(map(len, self.columns["q"])))

    def mask(self, width: int = WIDTH) -> Tensor:
        return torch.tensor([[t < len(row) for t in range(width)] for row in self.columns["q"]])

    def padded(self, name: str, *, width: int = WIDTH, filler: float = 0.0) -> Tensor:
        rows = self.columns[name]
        return torch.tensor([row + [filler] * (width - len(row)) for row in rows], dtype=torch.float64).reshape(-1, width)


@st.composite
def batches(draw: st.DrawFn) -> Episodes:
    lengths = draw(st.lists(st.integers(0, WIDTH), min_size=1, max_size=4))
    return Episodes({name: [draw(st.lists(number, min_size=n, max_size=n)) for n in lengths] for name in COLUMNS})


def losses(batch: Episodes, leaves: dict[str, Tensor], mask_BT: Tensor, **more: float) -> Tensor:
    given = {"gamma": 0.9, "expectile": 0.7, "cql_coef": 0.3} | more
    return ilql_loss(
        leaves["q"],
        leaves["logprob"],
        leaves["target"],
        leaves["value"],
        next_values(leaves["value"], mask_BT),
        leaves["reward"],
        mask_BT,
        num_tokens=batch.count,
        **given,
    ).loss


def slow(batch: Episodes, gamma: float, tau: float, coef: float) -> tuple[float, dict[str, Rows]]:
    """The whole loss and its derivatives, one action at a time."""
    total, count = 0.0, batch.count
    gradients: dict[str, Rows] = {name: [[] for _ in batch.columns["q"]] for name in COLUMNS}
    for row, qs in enumerate(batch.columns["q"]):
        for t, q in enumerate(qs):
            value, target, reward, logprob = (batch.columns[name][row][t] for name in COLUMNS[1:])
            follows = batch.columns["value"][row][t + 1] if t + 1 < len(qs) else 0.0
            error = q - (reward + gamma * follows)
            above = target - value
            weight = tau if above >= 0 else 1 - tau
            total += (error**2 + weight * above**2 - coef * logprob) / count
            gradients["q"][row].append(2 * error / count)
            # Not through the next value, which is part of the target.
            gradients["value"][row].append(-2 * weight * above / count)
            gradients["logprob"][row].append(-coef / count)
    return total, gradients


@settings(deadline=None)
@given(batches(), st.floats(0.1, 1), st.floats(0.05, 0.95), st.floats(0, 1))
def test_the_whole_loss_and_its_gradient_equal_a_loop(batch: Episodes, gamma: float, tau: float, coef: float) -> None:
    leaves = {name: batch.padded(name).requires_grad_() for name in COLUMNS}
    loss = losses(batch, leaves, batch.mask(), gamma=gamma, expectile=tau, cql_coef=coef)
    loss.backward()
    expected, gradients = slow(batch, gamma, tau, coef)
    assert loss.item() == pytest.approx(expected, abs=EXACT)
    for name in ("q", "value", "logprob"):
        wanted = Episodes({**batch.columns, name: gradients[name]}).padded(name)
        found = leaves[name].grad
        assert found is not None
        torch.testing.assert_close(found, wanted, atol=EXACT, rtol=0)
    assert leaves["target"].grad is None, "the slow copy is never pulled"
    assert leaves["reward"].grad is None


def test_by_hand() -> None:
    # Two actions: r = 0 then 1, gamma 0.5. Q = 0.4, 0.7; V = 0.6, 0.8; slow Q = 1.0, 0.5; tau 0.9.
    # TD: (0 + 0.5 * 0.8 - 0.4)^2 = 0 and (1 - 0.7)^2 = 0.09; over 2: 0.045.
    # Expectile: 0.9 * (1 - 0.6)^2 = 0.144 and 0.1 * (0.5 - 0.8)^2 = 0.009; over 2: 0.0765.
    # CQL: -(log 0.5 + log 0.25) / 2 = 1.0397208; times 0.1. Whole: 0.045 + 0.0765 + 0.10397208 = 0.22547208.
    mask_BT = torch.ones(1, 2, dtype=torch.bool)
    values_BT = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    found = ilql_loss(
        torch.tensor([[0.4, 0.7]], dtype=torch.float64),
        torch.tensor([[0.5, 0.25]], dtype=torch.float64).log(),
        torch.tensor([[1.0, 0.5]], dtype=torch.float64),
        values_BT,
        next_values(values_BT, mask_BT),
        torch.tensor([[0.0, 1.0]], dtype=torch.float64),
        mask_BT,
        gamma=0.5,
        expectile=0.9,
        cql_coef=0.1,
        num_tokens=2,
    )
    assert [float(part) for part in found] == pytest.approx([0.22547208, 0.045, 0.0765, 1.0397208], abs=1e-7)


@settings(deadline=None)
@given(batches(), st.sampled_from([-math.inf, math.inf, math.nan, 1e9]), st.integers(0, 3))
def test_padding_changes_neither_loss_nor_gradient(batch: Episodes, filler: float, more: int) -> None:
    found = []
    for width, garbage in ((WIDTH, 0.0), (WIDTH + more, filler)):
        leaves = {name: batch.padded(name, width=width, filler=garbage).requires_grad_() for name in COLUMNS}
        mask_BT = batch.mask(width)
        loss = losses(batch, leaves, mask_BT)
        loss.backward()
        gradients = []
        for name in ("q", "value", "logprob"):
            gradient = leaves[name].grad
            assert gradient is not None
            assert not gradient[~mask_BT].any(), f"padding pulls on {name}"
            gradients.append(gradient[:, :WIDTH])
        found.append((loss.item(), torch.stack(gradients)))
    assert found[0][0] == pytest.approx(found[1][0], abs=EXACT)
    torch.testing.assert_close(found[0][1], found[1][1], atol=EXACT, rtol=0)


@settings(deadline=None)
@given(batches(), st.randoms(use_true_random=False), st.integers(1, 3))
def test_order_does_not_matter_and_parts_add_up(batch: Episodes, random: object, size: int) -> None:
    order = list(range(len(batch.columns["q"])))
    random.shuffle(order)  # type: ignore[attr-defined]
    leaves, mask_BT = {name: batch.padded(name) for name in COLUMNS}, batch.mask()
    whole = losses(batch, leaves, mask_BT).item()
    mixed = losses(batch, {name: leaf[order] for name, leaf in leaves.items()}, mask_BT[order]).item()
    assert mixed == pytest.approx(whole, abs=EXACT)
    starts = range(0, len(order), size)
    parts = [losses(batch, {n: leaf[s : s + size] for n, leaf in leaves.items()}, mask_BT[s : s + size]).item() for s in starts]
    assert math.fsum(parts) == pytest.approx(whole, abs=EXACT)


@settings(deadline=None)
@given(batches())
def test_an_expectile_of_a_half_is_half_the_squared_error(batch: Episodes) -> None:
    found = expectile_loss(batch.padded("value"), batch.padded("target"), batch.mask(), expectile=0.5, num_tokens=batch.count)
    pairs = zip(batch.columns["value"], batch.columns["target"], strict=True)
    squares = [(v - q) ** 2 for values, targets in pairs for v, q in zip(values, targets, strict=True)]
    assert found.item() == pytest.approx(0.5 * math.fsum(squares) / batch.count, abs=EXACT)


def expectile_of(samples: list[float], tau: float) -> float:
    """The value at which the expectile loss of the samples has no slope, by bisection on autograd's gradient."""
    low, high = min(samples), max(samples)
    target = torch.tensor([samples], dtype=torch.float64)
    for _ in range(80):
        middle = torch.full_like(target, (low + high) / 2).requires_grad_()
        expectile_loss(middle, target, torch.ones_like(target, dtype=torch.bool), expectile=tau, num_tokens=1).backward()
        assert middle.grad is not None
        low, high = ((low + high) / 2, high) if middle.grad.sum() < 0 else (low, (low + high) / 2)
    return (low + high) / 2


@settings(deadline=None, max_examples=30)
@given(st.lists(number, min_size=2, max_size=8))
def test_the_expectile_goes_from_the_mean_to_the_maximum(samples: list[float]) -> None:
    assume(max(samples) - min(samples) > 0.1)
    found = [expectile_of(samples, tau) for tau in (0.1, 0.5, 0.7, 0.9, 0.99, 0.99999)]
    assert all(a < b for a, b in pairwise(found))
    assert found[1] == pytest.approx(sum(samples) / len(samples), abs=1e-9)
    # The slope at the maximum is zero up to (1 - tau) / tau times the sum of the gaps to it.
    assert max(samples) - 8 * 6 * 1e-5 <= found[-1] < max(samples)


def test_next_values_stop_at_the_end_of_an_episode() -> None:
    values_BT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    mask_BT = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    assert next_values(values_BT, mask_BT).tolist() == [[2.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@settings(deadline=None)
@given(st.lists(number, min_size=1, max_size=5), st.floats(0, 1), st.integers(1, 6))
def test_polyak_is_a_weighted_mean_without_gradient(values: list[float], rate: float, times: int) -> None:
    """Against its closed form: after n steps towards a fixed head the gap is (1 - rate)^n of what it was."""
    online = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    start = torch.zeros_like(online).detach() + 2
    target = start
    for _ in range(times):
        target = polyak(target, online, rate=rate)
    assert not target.requires_grad
    expected = online.detach() + (start - online.detach()) * (1 - rate) ** times
    torch.testing.assert_close(target, expected, atol=EXACT, rtol=0)
    assert online.grad is None


@settings(deadline=None)
@given(st.lists(st.lists(number, min_size=4, max_size=4), min_size=1, max_size=4), st.floats(0, 5), st.integers(0, 6))
def test_advantage_weighted_equals_a_loop(rows: list[list[float]], beta: float, top_k: int) -> None:
    logits_NA = torch.tensor(rows, dtype=torch.float64)
    q_NA = torch.tensor([row[::-1] for row in rows], dtype=torch.float64) * 0.7
    values_N = torch.arange(len(rows), dtype=torch.float64)
    assume(all(len(set(row)) == 4 for row in rows))  # of equals, either may be kept
    found_NA = torch.softmax(advantage_weighted(logits_NA, q_NA, values_N, beta=beta, top_k=top_k), dim=1)
    for n, row in enumerate(rows):
        kept = sorted(range(4), key=lambda a: -row[a])[: top_k or 4]
        weights = [math.exp(row[a] + beta * float(q_NA[n, a])) if a in kept else 0.0 for a in range(4)]
        torch.testing.assert_close(
            found_NA[n], torch.tensor([w / math.fsum(weights) for w in weights], dtype=torch.float64), atol=1e-9, rtol=0
        )


def test_advantage_weighted_by_hand() -> None:
    # Probabilities 1/4 and 3/4, Q = 2 and 1, V = 1/2, beta 2: log(1/4) + 3 and log(3/4) + 1; top_k 1 keeps the likelier one.
    logits_NA = torch.tensor([[0.25, 0.75]]).log() + 5
    for top_k, expected in ((0, [1.613706, 0.712318]), (1, [-math.inf, 0.712318])):
        found = advantage_weighted(logits_NA, torch.tensor([[2.0, 1.0]]), torch.tensor([0.5]), beta=2.0, top_k=top_k)
        assert found.tolist()[0] == pytest.approx(expected, abs=1e-6)


def test_illegal_actions_stay_impossible() -> None:
    logits_NA = torch.tensor([[0.0, -torch.inf, 1.0]])
    q_NA = torch.tensor([[0.0, 100.0, 0.0]])
    for top_k in (0, 2, 3):
        weighted = advantage_weighted(logits_NA, q_NA, torch.zeros(1), beta=1.0, top_k=top_k)
        assert weighted[0, 1] == -torch.inf


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4))
def test_spread_undoes_selecting(rows: list[list[bool]]) -> None:
    mask_BT = torch.tensor(rows)
    values_BT = torch.arange(1.0, mask_BT.numel() + 1).reshape(mask_BT.shape).requires_grad_()
    found_BT = spread(values_BT[mask_BT], mask_BT)
    assert torch.equal(found_BT, values_BT * mask_BT)
    found_BT.sum().backward()
    assert torch.equal(values_BT.grad, mask_BT.float())


def test_shapes_that_differ_are_named() -> None:
    wide, narrow, mask_BT = torch.zeros(2, 4), torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"rewards_BT \(2, 3\)"):
        td_loss(wide, narrow, wide, mask_BT, gamma=1.0, num_tokens=1)
    with pytest.raises(ShapeError, match=r"target_q_BT \(2, 3\)"):
        expectile_loss(wide, narrow, mask_BT, expectile=0.5, num_tokens=1)
    with pytest.raises(ShapeError, match=r"q_logprobs_BT \(2, 3\)"):
        cql_loss(narrow, mask_BT, num_tokens=1)
    with pytest.raises(ShapeError, match=r"values_BT \(2, 3\)"):
        next_values(narrow, mask_BT)
    with pytest.raises(ShapeError, match=r"q_NA \(2, 3\)"):
        advantage_weighted(wide, narrow, torch.zeros(2), beta=1.0, top_k=0)
