"""A team of two real processes over gloo does what one process does, to the last digits; and refuses weights that are stale."""

from __future__ import annotations

from pathlib import Path

import gang_work
import pytest
import torch
from gang import Gang
from hypothesis import given
from hypothesis import strategies as st

from heedful.errors import RewardError, TrainingError
from heedful.team import ALONE, Team, shared, spread, team, together

# Sums of the same float32 terms in another order and in parts of another shape, beside the largest gradient of the update.
SAME_GRADIENT = 2e-5
# What a step measures is made of sums as well, and after an update of weights that differ in the last bits.
SAME_MEASURED = 2e-3
SAME_LOGPROB = 1e-4  # float32, a matrix product of other shape

pytestmark = pytest.mark.timeout(120)


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 9))
def test_each_piece_is_done_once_and_no_share_is_much_dearer(costs: list[int], count: int) -> None:
    shares = spread(costs, count)
    assert len(shares) == count
    assert sorted(i for share in shares for i in share) == list(range(len(costs)))
    laden = [sum(costs[i] for i in share) for share in shares]
    # The dearest first, to whom has least: no two shares are further apart than one piece.
    assert max(laden) - min(laden) <= max(costs, default=0)


def test_alone_work_is_done_as_it_stands() -> None:
    assert team() is ALONE
    assert shared([3, 1, 2], lambda places: [10 * i for i in places], "work") == [0, 10, 20]
    assert together(lambda: 7, "work") == [7]


@pytest.mark.parametrize("kind", ["ppo", "grpo", "dpo", "kto", "sft", "reward"])
def test_the_gradient_of_two_equals_that_of_one(two: Gang, tiny: Path, tmp_path: Path, kind: str) -> None:
    """Two whole steps of each method: every gradient, and every number that is measured, evaluation included."""
    alone, measured_alone = gang_work.steps(kind, str(tiny), str(tmp_path), 2)
    both, measured_both = two.both("steps", kind, str(tiny), str(tmp_path), 2)
    assert two.other == "ok"
    assert len(alone) == len(both) >= 2
    for number, (one, other) in enumerate(zip(alone, both, strict=True)):
        largest = max(float(gradient.abs().max()) for gradient in one)
        assert largest > 0
        for a, b in zip(one, other, strict=True):
            # Beyond the first update the weights differ in their last bits, which Adam's division by small moments enlarges.
            limit = SAME_GRADIENT if number == 0 else 50 * SAME_GRADIENT
            torch.testing.assert_close(a, b, rtol=0, atol=limit * largest)
    for one, other in zip(measured_alone, measured_both, strict=True):
        assert set(one) == set(other)
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=SAME_MEASURED, abs=SAME_MEASURED), name


def test_rollouts_of_two_are_those_of_one(two: Gang, tiny: Path) -> None:
    alone, both = gang_work.rollouts(str(tiny)), two.both("rollouts", str(tiny))
    assert [ids for ids, *_ in alone] == [ids for ids, *_ in both]
    for (_, one, reward), (_, other, reward_) in zip(alone, both, strict=True):
        assert one == pytest.approx(other, abs=SAME_LOGPROB)
        assert reward == reward_


def test_rewards_of_two_are_those_of_one(two: Gang, tiny: Path) -> None:
    alone, both = gang_work.rewards(str(tiny)), two.both("rewards", str(tiny))
    assert max(alone) - min(alone) > 0.1
    assert alone == pytest.approx(both, abs=SAME_LOGPROB)


def test_both_work(two: Gang) -> None:
    assert two.both("who_did_what", [5, 3, 2, 2]) == [0, 1, 1, 0]
    assert two.both("who_did_what", []) == []


def test_what_lies_outside_is_asked_once(two: Gang) -> None:
    assert two.both("outside") == 0.5
    assert two.other == "ok"


@pytest.mark.parametrize("rank", [0, 1])
def test_what_fails_on_one_fails_on_all_as_what_it_is(two: Gang, rank: int) -> None:
    with pytest.raises(RewardError, match="the endpoint is gone"):
        two.both("fails", rank)
    assert two.other == "failed: RewardError: the endpoint is gone"


def test_a_slow_worker_is_waited_for(two: Gang) -> None:
    assert two.both("late", 1.0) == [0, 1]


def test_a_worker_that_keeps_old_weights_is_refused_by_name(two: Gang, tiny: Path) -> None:
    with pytest.raises(TrainingError, match=r"policy version 1: worker 1 holds weights \w{12} of version 1, worker 0 holds"):
        two.both("stale", str(tiny), True)


def test_old_weights_that_pass_for_new_ones_are_seen_by_rescoring(two: Gang, tiny: Path) -> None:
    """The handshake is made to say that all is well: what one worker sampled is scored again by the other."""
    with pytest.raises(TrainingError, match="the rollouts come from other weights"):
        two.both("stale", str(tiny), False)


def test_a_rollout_worker_has_no_share_of_the_gradients(tmp_path: Path) -> None:
    class Three:
        rank, size, num_trainers = 2, 3, 2

        def exchange(self, mine: object, at: str) -> list[object]:
            return [(None, ((5, 5), [0])), (None, ((5, 5), [1])), mine]

        def says(self, doing: str) -> None: ...

    from heedful.team import working_in

    three: Team = Three()  # type: ignore[assignment]
    with working_in(three):
        done: list[list[int]] = []
        assert shared([5, 5], lambda places: done.append(places) or [], "gradients", members=2) == [0, 1]
    assert done == []
