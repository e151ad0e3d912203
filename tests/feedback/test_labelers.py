"""Labeler quality: Kendall's S by hand and by brute force, and the error rates of the tests."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from heedful.feedback.kendall import kendall_s, kendall_variance, tau
from heedful.feedback.labelers import labeler_quality
from heedful.feedback.leave_one_out import _lower_than_others, leave_one_out
from heedful.records import Judgement, LabelerQuality

RANKS = st.integers(2, 6).flatmap(lambda n: st.tuples(*[st.lists(st.integers(1, n), min_size=n, max_size=n) for _ in range(2)]))


def judge(labeler: str, prompt_id: str, ranks: Mapping[str, int], flagged: tuple[str, ...] = (), **fields: Any) -> Judgement:
    known: dict[str, Any] = {
        "id": f"{prompt_id}/{labeler}",
        "prompt_id": prompt_id,
        "labeler": labeler,
        "source": "human",
        "criterion": "helpful",
        "ranks": dict(ranks),
        "flagged": flagged,
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return Judgement.model_validate(known | fields)


def crowd(noises: Mapping[str, float], num_prompts: int, seed: int, num_items: int = 4) -> list[Judgement]:
    """Labelers who see a true value through noise of their own size; infinite noise is clicking at random."""
    chance = np.random.default_rng(seed)
    judgements = []
    for number in range(num_prompts):
        truth = chance.normal(size=num_items)
        for name, noise in noises.items():
            seen = chance.normal(size=num_items) if math.isinf(noise) else truth + noise * chance.normal(size=num_items)
            ranks = {f"p{number}-{item}": int(rank) for item, rank in enumerate(stats.rankdata(-seen))}
            judgements.append(judge(name, f"p{number}", ranks))
    return judgements


def by_name(judgements: list[Judgement]) -> dict[str, LabelerQuality]:
    return {quality.labeler: quality for quality in labeler_quality(judgements)}


def test_kendall_s_by_hand() -> None:
    assert kendall_s([1, 2, 3, 4], [1, 2, 3, 4]) == 6
    assert kendall_s([1, 2, 3, 4], [1, 2, 4, 3]) == 4  # one adjacent swap, not -6
    assert kendall_s([1, 2, 3, 4], [4, 3, 2, 1]) == -6
    assert kendall_s([1, 1, 2], [1, 2, 3]) == 2
    with pytest.raises(ValueError):
        kendall_s([1, 2], [1])


def test_tau_by_hand() -> None:
    assert tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(2 / 3)  # one adjacent swap; taken on lists of ids it was -1
    assert tau([1, 2], [2, 1]) == -1
    assert tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert tau([1, 1], [1, 2]) is tau([], []) is tau([1], [1]) is None


@given(RANKS)
def test_variance_is_that_over_all_permutations(vectors: tuple[list[int], list[int]]) -> None:
    first, second = vectors
    values = [kendall_s(first, shuffled) for shuffled in permutations(second)]
    assert sum(values) == 0
    assert kendall_variance(first, second) == pytest.approx(np.var(values))


def test_variance_without_ties() -> None:
    for n in range(2, 10):
        order = list(range(n))
        assert kendall_variance(order, order) == pytest.approx(n * (n - 1) * (2 * n + 5) / 18)
    assert kendall_variance([1], [1]) == kendall_variance([], []) == 0


@given(RANKS)
def test_tau_is_scipys(vectors: tuple[list[int], list[int]]) -> None:
    first, second = vectors
    expected = stats.kendalltau(first, second).statistic
    found = tau(first, second)
    if found is None:
        assert math.isnan(expected)
    else:
        assert found == pytest.approx(expected)


@given(RANKS, st.randoms())
def test_tau_knows_no_labels(vectors: tuple[list[int], list[int]], chance: Any) -> None:
    first, second = vectors
    places = list(range(len(first)))
    chance.shuffle(places)
    moved = tau([first[i] for i in places], [second[i] for i in places])
    assert moved == tau(first, second) == tau(second, first)
    if moved is not None:
        turned = tau([-rank for rank in first], second)
        assert turned == pytest.approx(-moved)


def test_quality_by_hand() -> None:
    order = {"a": 1, "b": 2, "c": 3}
    swapped = {"a": 2, "b": 1, "c": 3}
    judgements = [judge(name, f"p{i}", swapped if name == "z" else order) for i in range(10) for name in "xyz"]
    found = by_name(judgements)
    z = found["z"]
    assert z.num_judgements == 10
    assert z.agreement == pytest.approx(2 / 3)
    assert z.reliability == pytest.approx(1 / 3)
    assert z.z == pytest.approx(10 / math.sqrt(10 * 11 / 3))  # S = 1 a prompt, variance 3 * 2 * 11 / 18
    # Others of x: y and z leave a and b level, so x agrees on the two pairs decided: tau-b 2 / sqrt(3 * 2), S = 2.
    x = found["x"]
    assert x.agreement == 1.0
    assert x.reliability == pytest.approx(2 / math.sqrt(6))
    assert x.z == pytest.approx(20 / math.sqrt(10 * kendall_variance([1, 2, 3], [1, 1, 2])))
    # By lot z has its low value on all ten prompts once in 3^10.
    assert z.p == pytest.approx(1 / 10_001, abs=3e-4)
    assert z.p is not None
    assert z.q == pytest.approx(3 * z.p)
    assert (z.suspect, z.verdict) == (True, "agrees less than the others")
    assert (x.suspect, x.verdict) == (False, "agrees with the others")


def test_p_is_the_share_of_assignments_that_are_as_low() -> None:
    """Against all 3^8 ways to give the labeler one of the values of each prompt, counted one by one."""
    chance = random.Random(1)
    values = [chance.choice([-1.0, -1 / 3, 0.0, 1 / 3, 1.0]) for _ in range(24)]
    taus = [{name: values[3 * i + k] for k, name in enumerate("abc")} for i in range(8)]
    for name in "abc":
        rows = [[found[other] for other in (name, *sorted(set("abc") - {name}))] for found in taus]

        def lower(picks: tuple[int, ...], rows: list[list[float]] = rows) -> float:
            return sum(row[k] - (sum(row) - row[k]) / 2 for row, k in zip(rows, picks, strict=True))

        observed = lower((0,) * 8)
        exact = sum(lower(picks) <= observed + 1e-9 for picks in product(range(3), repeat=8)) / 3**8
        assert _lower_than_others(name, taus) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 10_000) + 2e-4)


def test_prompts_with_one_other_labeler_do_not_count() -> None:
    full = dict.fromkeys("abc", 1.0)
    assert _lower_than_others("a", [full] * 8) == 1.0
    assert _lower_than_others("a", [full, *[dict.fromkeys("ab", 1.0)] * 7]) is None


def test_a_random_clicker_among_careful_ones_is_found_and_named() -> None:
    found = by_name(crowd({"a": 0.5, "b": 0.5, "c": 0.5, "d": math.inf}, 60, seed=1))
    assert found["d"].suspect
    assert found["d"].q is not None
    assert found["d"].q < 0.01
    assert found["d"].verdict == "answers like random clicks"
    for name in "abc":
        assert not found[name].suspect
        assert (found[name].z or 0) > 5
        assert found[name].reliability > 0.4


def test_a_weaker_labeler_is_not_called_random() -> None:
    found = by_name(crowd({"a": 0.2, "b": 0.2, "c": 0.2, "d": 1.5}, 150, seed=2))
    assert (found["d"].suspect, found["d"].verdict) == (True, "agrees less than the others")


def test_a_contrarian_is_found_too() -> None:
    ranks, turned = {"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 2, "c": 1}
    found = by_name([judge(n, f"p{i}", turned if n == "z" else ranks) for i in range(20) for n in "wxyz"])
    assert (found["z"].agreement, found["z"].reliability) == (0.0, 0.0)
    assert found["z"].suspect
    assert (found["z"].z or 0) < -5


def test_calling_everything_level_is_no_agreement() -> None:
    """A default order that nobody touched: S says nothing, but the others found an order and this one did not."""
    judgements = crowd({"a": 0.5, "b": 0.5, "c": 0.5}, 30, seed=3)
    judgements += [judge("d", f"p{i}", {f"p{i}-{item}": 1 for item in range(4)}) for i in range(30)]
    found = by_name(judgements)["d"]
    assert (found.reliability, found.z, found.agreement) == (0.0, None, None)
    assert (found.suspect, found.verdict) == (True, "answers like random clicks")


def test_equally_skilled_labelers_are_seldom_suspect() -> None:
    """Of 80 crowds without a careless labeler at most 5% may hold a suspect, give or take chance."""
    noises = dict.fromkeys("abcd", 0.7)
    alarms = sum(any(own.suspect for own in leave_one_out(crowd(noises, 20, seed)).values()) for seed in range(80))
    assert alarms <= 9  # binomial(80, 0.05) exceeds 9 once in 150 times; the seeds are fixed


@pytest.mark.parametrize("num_prompts", [1, 7])
def test_too_few_prompts(num_prompts: int) -> None:
    for quality in labeler_quality(crowd({"a": 0.1, "b": 0.1, "c": math.inf}, num_prompts, seed=0)):
        assert (quality.p, quality.q, quality.suspect, quality.verdict) == (None, None, False, "too few to tell")


def test_one_labeler_or_two_cannot_be_told_apart() -> None:
    (alone,) = labeler_quality(crowd({"a": 0.1}, 20, seed=0))
    assert (alone.agreement, alone.reliability, alone.z, alone.p) == (None, 0.0, None, None)
    assert alone.verdict == "too few to tell"
    pair = labeler_quality(crowd({"b": 0.1, "a": 0.1}, 20, seed=0))
    assert [quality.labeler for quality in pair] == ["a", "b"]
    assert {quality.verdict for quality in pair} == {"too few to tell"}
    assert all((quality.z or 0) > 5 for quality in pair)
    assert labeler_quality([]) == []


def test_flagging_everything_leaves_nothing_to_compare() -> None:
    judgements = crowd({"a": 0.2, "b": 0.2, "c": 0.2}, 20, seed=0)
    judgements += [judge("d", f"p{i}", {}, tuple(f"p{i}-{item}" for item in range(4))) for i in range(20)]
    found = by_name(judgements)
    assert (found["d"].num_judgements, found["d"].verdict) == (20, "too few to tell")
    assert found["a"].verdict == "agrees with the others"


def test_order_and_names_of_the_input_are_irrelevant() -> None:
    judgements = crowd({"a": 0.5, "b": 0.5, "c": 0.5, "d": math.inf}, 15, seed=4)
    expected = labeler_quality(judgements)
    shuffled = random.Random(0).sample(judgements, len(judgements))
    assert labeler_quality(shuffled) == expected
    other = {"a": "z", "b": "c", "c": "m", "d": "a"}
    renamed = by_name([j.model_copy(update={"labeler": other[j.labeler]}) for j in judgements])
    for quality in expected:
        assert renamed[other[quality.labeler]] == quality.model_copy(update={"labeler": other[quality.labeler]})


def test_a_labelers_later_judgement_counts() -> None:
    judgements = crowd({"a": 0.2, "b": 0.2, "c": 0.2}, 10, seed=0)
    turned = [
        j.model_copy(update={"id": "old", "ranks": {i: 9 - r for i, r in j.ranks.items()}, "created_at": "2025-01-01"})
        for j in judgements
    ]
    assert leave_one_out(turned + judgements) == leave_one_out(judgements)
    for both, last in zip(labeler_quality(turned + judgements), labeler_quality(judgements), strict=True):
        assert (both.self_consistency, last.self_consistency) == (0.0, None)  # the rest is said of the later ones
        assert (both.discrimination, both.random_click_probability) == (last.discrimination, last.random_click_probability)


def test_weights_reach_the_others_consensus() -> None:
    order, turned = {"a": 1, "b": 2}, {"a": 2, "b": 1}
    judgements = [judge("x", "p", order), judge("y", "p", order), judge("z", "p", turned)]
    assert {q.labeler: q.agreement for q in labeler_quality(judgements)} == {"x": None, "y": None, "z": 0.0}
    found = {q.labeler: q.agreement for q in labeler_quality(judgements, {"z": 0.1})}
    assert found == {"x": 1.0, "y": 1.0, "z": 0.0}
