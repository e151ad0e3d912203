"""Baselines from the other answers to a prompt, and sampled estimates of the KL: by hand, against loops, and by their laws."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.errors import ShapeError
from heedful.functional.advantages import equal_groups, group_advantages, leave_one_out, sampled_kl

# float32 sums of a few numbers of size 10.
CLOSE = 1e-4

rewards = st.floats(-10, 10, width=32)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    """Rewards and their groups of two to five, mixed up."""
    sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    rows = [(draw(rewards), group) for group, size in enumerate(sizes) for _ in range(size)]
    rows = draw(st.permutations(rows))
    return [reward for reward, _ in rows], [group for _, group in rows]


def others(values: list[float], groups: list[int], i: int) -> list[float]:
    return [value for j, (value, group) in enumerate(zip(values, groups, strict=True)) if group == groups[i] and j != i]


@settings(deadline=None)
@given(grouped())
def test_leave_one_out_equals_a_loop(case: tuple[list[float], list[int]]) -> None:
    values, groups = case
    found = leave_one_out(torch.tensor(values), torch.tensor(groups)).tolist()
    expected = [value - statistics.fmean(others(values, groups, i)) for i, value in enumerate(values)]
    assert found == pytest.approx(expected, abs=CLOSE)


def test_leave_one_out_by_hand() -> None:
    # 3 against (1 + 2) / 2, 1 against (3 + 2) / 2, 2 against (3 + 1) / 2; 5 against 4.
    found = leave_one_out(torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0]), torch.tensor([0, 0, 0, 1, 1]))
    assert found.tolist() == pytest.approx([1.5, -1.5, 0.0, 1.0, -1.0])


@settings(deadline=None)
@given(grouped(), st.integers(0, 3), rewards)
def test_an_answers_own_reward_is_not_in_its_baseline(case: tuple[list[float], list[int]], place: int, more: float) -> None:
    """That is what makes it unbiased: raising one reward raises its own advantage by as much."""
    values, groups = case
    i = place % len(values)
    before = leave_one_out(torch.tensor(values), torch.tensor(groups))
    values[i] += more
    after = leave_one_out(torch.tensor(values), torch.tensor(groups))
    assert float(after[i] - before[i]) == pytest.approx(more, abs=CLOSE)


def test_a_group_of_one_has_no_baseline() -> None:
    with pytest.raises(ShapeError, match=r"^a group of one answer has no others .*; take two samples a prompt or more$"):
        leave_one_out(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]))


@settings(deadline=None)
@given(grouped())
def test_group_advantages_equal_a_loop(case: tuple[list[float], list[int]]) -> None:
    values, groups = case
    plain = group_advantages(torch.tensor(values), torch.tensor(groups), scale=False).tolist()
    scaled = group_advantages(torch.tensor(values), torch.tensor(groups), scale=True).tolist()
    for i, value in enumerate(values):
        members = [*others(values, groups, i), value]
        if max(members) == min(members):
            assert plain[i] == scaled[i] == 0
            continue
        assert plain[i] == pytest.approx(value - statistics.fmean(members), abs=CLOSE)
        if statistics.stdev(members) > 0.01:
            assert scaled[i] == pytest.approx((value - statistics.fmean(members)) / statistics.stdev(members), abs=1e-2)


def test_group_advantages_by_hand() -> None:
    # Mean 2, squares 1 + 1 + 0 over two: deviation 1. The second group is all alike.
    values, groups = torch.tensor([3.0, 1.0, 2.0, 7.0, 7.0]), torch.tensor([0, 0, 0, 1, 1])
    assert group_advantages(10 * values, groups, scale=True).tolist() == pytest.approx([1, -1, 0, 0, 0], abs=1e-5)
    assert group_advantages(10 * values, groups, scale=False).tolist() == pytest.approx([10, -10, 0, 0, 0])
    assert equal_groups(values, groups).tolist() == [False, False, False, True, True]


def test_eps_is_added_to_the_deviation() -> None:
    # 3 and 1: mean 2, deviation sqrt(2). 1 / (sqrt(2) + 1/2) = 0.522408.
    found = group_advantages(torch.tensor([3.0, 1.0]), torch.tensor([0, 0]), scale=True, eps=0.5)
    assert found.tolist() == pytest.approx([0.522408, -0.522408], abs=1e-6)


def test_groups_that_are_equal_but_for_rounding_of_the_mean_are_equal() -> None:
    values = torch.full((3,), 0.1)
    assert group_advantages(values, torch.zeros(3, dtype=torch.long), scale=True).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_sampled_kl_is_right_on_average(kind: str) -> None:
    """The mean over tokens of p, each weighted with its probability, is the KL itself."""
    policy, reference = (torch.tensor(p, dtype=torch.float64) for p in ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6]))
    each = sampled_kl(policy.log()[None], reference.log()[None], kind)[0]  # type: ignore[arg-type]
    exact = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    assert float((policy * each).sum()) == pytest.approx(exact, abs=1e-12)


@settings(deadline=None)
@given(st.floats(-30, 0), st.floats(-30, 0))
def test_k3_is_never_negative_and_k1_turns_its_sign(logprob: float, ref_logprob: float) -> None:
    one, other = torch.tensor([[logprob]]), torch.tensor([[ref_logprob]])
    k3 = float(sampled_kl(one, other, "k3"))
    assert k3 >= -1e-6
    assert math.isfinite(k3)
    assert float(sampled_kl(one, other, "k1")) == -float(sampled_kl(other, one, "k1"))


def test_k3_by_hand() -> None:
    # log p = -1, log p_ref = -2: exp(-1) - 1 + 1.
    assert float(sampled_kl(torch.tensor([[-1.0]]), torch.tensor([[-2.0]]), "k3")) == pytest.approx(math.exp(-1), abs=1e-6)


def test_k3_holds_the_log_ratio_within_twenty() -> None:
    # log(p_ref / p) of 100 counts as 20, in float32, where exp(100) is infinite: exp(20) - 21. Of -100 as -20: exp(-20) + 19.
    here, far = torch.tensor([[0.0]]), torch.tensor([[-100.0]])
    assert float(sampled_kl(far, here, "k3")) == pytest.approx(math.exp(20) - 21, rel=1e-6)
    assert float(sampled_kl(here, far, "k3")) == pytest.approx(math.exp(-20) + 19, rel=1e-6)
    # Within it nothing is held: exp(-19) + 18, and exp(19) - 20.
    near = torch.tensor([[-19.0]])
    assert float(sampled_kl(here, near, "k3")) == pytest.approx(math.exp(-19) + 18, rel=1e-6)
    assert float(sampled_kl(near, here, "k3")) == pytest.approx(math.exp(19) - 20, rel=1e-6)
