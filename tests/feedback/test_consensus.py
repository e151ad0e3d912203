"""Exact Kemeny against enumeration of all weak orders, flags by majority, and every input that cannot be used."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import combinations, permutations, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.errors import DataError
from heedful.feedback.consensus import Consensus, Support, check, consensus, kemeny, latest
from heedful.records import Completion, Judgement, Message, Prompt, Sampling

CLOSE = 1e-6  # costs are counted in billionths of a vote


def judge(labeler: str, ranks: Mapping[str, int], flagged: tuple[str, ...] = (), **fields: Any) -> Judgement:
    given_fields: dict[str, Any] = {
        "id": f"p/{labeler}",
        "prompt_id": "p",
        "labeler": labeler,
        "source": "human",
        "criterion": "helpful",
        "ranks": dict(ranks),
        "flagged": flagged,
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return Judgement.model_validate(given_fields | fields)


def one(*judgements: Judgement, weights: Mapping[str, float] | None = None) -> Consensus:
    (found,) = consensus(judgements, weights)
    return found


def weak_orders(items: list[str]) -> Iterator[dict[str, int]]:
    for ranks in product(range(1, len(items) + 1), repeat=len(items)):
        if set(ranks) == set(range(1, max(ranks, default=0) + 1)):
            yield dict(zip(items, ranks, strict=True))


def pair_cost(first: Mapping[str, int], second: Mapping[str, int], a: str, b: str) -> float:
    one_way, other = (first[a] > first[b]) - (first[a] < first[b]), (second[a] > second[b]) - (second[a] < second[b])
    return abs(one_way - other) / 2


def slow_cost(order: Mapping[str, int], judgements: list[Judgement], weights: Mapping[str, float]) -> float:
    return sum(
        weights.get(j.labeler, 1.0) * pair_cost(order, j.ranks, a, b)
        for j in judgements
        for a, b in combinations(sorted(order), 2)
        if a in j.ranks and b in j.ranks
    )


@st.composite
def rankings(draw: st.DrawFn, max_items: int = 5) -> tuple[list[str], list[Judgement]]:
    """Judgements that each rank all items or, now and then, leave some out (shown to nobody, so nothing is flagged)."""
    items = list("abcde"[: draw(st.integers(1, max_items))])
    judgements = []
    for number in range(draw(st.integers(1, 5))):
        kept = [item for item in items if draw(st.integers(0, 5)) > 0]
        judgements.append(judge(f"l{number}", {item: draw(st.integers(1, len(items))) for item in kept}))
    seen = sorted({item for judgement in judgements for item in judgement.ranks})
    return seen, judgements


WEIGHTS = st.dictionaries(st.sampled_from([f"l{i}" for i in range(5)]), st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5]))


def test_the_enumeration_itself() -> None:
    assert [len(list(weak_orders(list("abcde"[:n])))) for n in range(1, 6)] == [1, 3, 13, 75, 541]  # Fubini numbers


@settings(max_examples=150, deadline=None)
@given(rankings(), WEIGHTS)
def test_kemeny_is_the_least_of_all_weak_orders(case: tuple[list[str], list[Judgement]], weights: dict[str, float]) -> None:
    items, judgements = case
    found = one(*judgements, weights=weights)
    costs = [(slow_cost(order, judgements, weights), order) for order in weak_orders(items)]
    least = min((cost for cost, _ in costs), default=0.0)
    assert found.cost == pytest.approx(least, abs=CLOSE)
    assert slow_cost(found.ranks, judgements, weights) == pytest.approx(least, abs=CLOSE)
    others = [cost for cost, order in costs if order != found.ranks]
    if len(items) < 2:
        assert found.margin is None
    else:
        assert found.margin == pytest.approx(min(others) - least, abs=CLOSE)
        optima = [order for cost, order in costs if cost < least + CLOSE]
        assert max(found.ranks.values()) == min(max(order.values()) for order in optima)  # the coarsest


@settings(max_examples=100, deadline=None)
@given(rankings(max_items=4), WEIGHTS)
def test_among_orders_of_equal_cost_the_first_is_taken(
    case: tuple[list[str], list[Judgement]], weights: dict[str, float]
) -> None:
    """Fewest ranks, then the earliest items in the first rank, then in the second, and so on."""
    items, judgements = case
    found = one(*judgements, weights=weights)
    costs = [(slow_cost(order, judgements, weights), order) for order in weak_orders(items)]
    least = min((cost for cost, _ in costs), default=0.0)

    def preferred(order: dict[str, int]) -> tuple[int, list[list[bool]]]:
        ranks = sorted(set(order.values()))
        return len(ranks), [[order[item] != rank for item in items] for rank in ranks]

    if items:
        assert found.ranks == min((order for cost, order in costs if cost < least + CLOSE), key=preferred)


@settings(max_examples=60, deadline=None)
@given(rankings(), WEIGHTS, st.permutations(list("abcde")))
def test_relabelling_relabels_the_consensus(
    case: tuple[list[str], list[Judgement]], weights: dict[str, float], names: list[str]
) -> None:
    _, judgements = case
    rename = dict(zip("abcde", names, strict=True))
    renamed = [judge(j.labeler, {rename[i]: rank for i, rank in j.ranks.items()}) for j in judgements]
    before, after = one(*judgements, weights=weights), one(*renamed, weights=weights)
    assert (after.cost, after.margin) == (before.cost, before.margin)
    if before.margin:  # a single optimum
        assert after.ranks == {rename[item]: rank for item, rank in before.ranks.items()}


@settings(max_examples=60, deadline=None)
@given(rankings(), st.randoms())
def test_the_order_of_the_input_is_irrelevant(case: tuple[list[str], list[Judgement]], chance: Any) -> None:
    _, judgements = case
    shuffled = [j.model_copy(update={"ranks": dict(reversed(j.ranks.items()))}) for j in judgements]
    chance.shuffle(shuffled)
    assert consensus(shuffled) == consensus(judgements)


@settings(max_examples=60, deadline=None)
@given(rankings())
def test_turning_every_ranking_round_turns_the_support_round(case: tuple[list[str], list[Judgement]]) -> None:
    _, judgements = case
    turned = [judge(j.labeler, {item: 10 - rank for item, rank in j.ranks.items()}) for j in judgements]
    before, after = one(*judgements), one(*turned)
    assert after.cost == before.cost
    for pair, support in before.support.items():
        assert after.support[pair] == Support(over=support.under, under=support.over, tie=support.tie)


def test_a_unanimous_ranking_is_kept_with_its_ties() -> None:
    ranks = {"a": 2, "b": 1, "c": 2, "d": 3}
    found = one(judge("x", ranks), judge("y", ranks))
    assert found == Consensus("p", ranks, (), 2, 0.0, 1.0, found.support)  # breaking the tie costs 2 x 0.5
    assert found.support["a", "b"] == Support(under=2.0)
    assert found.support["a", "c"] == Support(tie=2.0)


def test_ranks_have_no_gaps() -> None:
    assert one(judge("x", {"a": 7, "b": 3, "c": 7, "d": 9})).ranks == {"a": 2, "b": 1, "c": 2, "d": 3}


def test_two_labelers_at_odds_leave_a_tie() -> None:
    found = one(judge("x", {"a": 1, "b": 2}), judge("y", {"a": 2, "b": 1}))
    assert (found.ranks, found.cost, found.margin) == ({"a": 1, "b": 1}, 1.0, 0.0)


def test_the_heavier_labeler_wins() -> None:
    judgements = judge("x", {"a": 1, "b": 2}), judge("y", {"a": 2, "b": 1})
    assert one(*judgements, weights={"y": 0.4}).ranks == {"a": 1, "b": 2}
    assert one(*judgements, weights={"y": 0.4}).margin == pytest.approx(0.3)  # tie 0.7, a first 0.4
    assert one(*judgements, weights={"x": 0.4}).ranks == {"a": 2, "b": 1}


def test_weights_that_sum_alike_tie_in_spite_of_rounding() -> None:
    up, down = {"a": 1, "b": 2}, {"a": 2, "b": 1}
    judgements = judge("x", up), judge("y", up), judge("z", down)
    assert 0.1 + 0.2 != 0.3
    assert one(*judgements, weights={"x": 0.1, "y": 0.2, "z": 0.3}).ranks == {"a": 1, "b": 1}


def test_a_cycle_goes_to_the_first_ids_with_margin_zero() -> None:
    cycle = [judge(f"l{i}", dict(zip(order, (1, 2, 3), strict=True))) for i, order in enumerate(("abc", "bca", "cab"))]
    found = one(*cycle)
    assert (found.ranks, found.cost, found.margin) == ({"a": 1, "b": 2, "c": 3}, 4.0, 0.0)


def test_pairs_that_nobody_compared_cost_nothing_and_stay_level() -> None:
    found = one(judge("x", {"a": 1, "b": 2}), judge("y", {"c": 1, "d": 2}))
    assert (found.ranks, found.cost) == ({"a": 1, "b": 2, "c": 1, "d": 2}, 0.0)
    assert found.support["a", "c"] == Support()


def test_one_judgement_is_its_own_consensus() -> None:
    found = one(judge("x", {"a": 1, "b": 2, "c": 2}, flagged=("d",)))
    assert (found.ranks, found.flagged, found.num_judges, found.cost) == ({"a": 1, "b": 2, "c": 2}, ("d",), 1, 0.0)


def test_a_flag_needs_more_than_half_of_the_weight() -> None:
    judgements = judge("x", {"a": 1, "b": 2}), judge("y", {"a": 1}, ("b",))
    assert one(*judgements).flagged == ()
    assert one(*judgements, weights={"y": 1.1}).flagged == ("b",)
    assert one(*judgements, judge("z", {}, ("b",))).flagged == ("b",)  # a was not shown to z


def test_all_flagged_and_a_labeler_who_ranked_nothing() -> None:
    found = one(judge("x", {}, ("a", "b")), judge("y", {"a": 1}, ("b",)), judge("z", {}, ("a", "b")))
    assert found == Consensus("p", {}, ("a", "b"), 3, 0.0, None, {})
    found = one(judge("x", {}, ("a", "b")), judge("y", {"a": 1, "b": 2}), judge("z", {"a": 1, "b": 2}))
    assert (found.ranks, found.flagged) == ({"a": 1, "b": 2}, ())


def test_a_judgement_of_nothing() -> None:
    assert one(judge("x", {})) == Consensus("p", {}, (), 1, 0.0, None, {})
    assert consensus([]) == []


def test_labelers_who_share_an_id_keep_their_weights() -> None:
    judgements = judge("x", {"a": 1, "b": 2}, id="same"), judge("y", {"a": 2, "b": 1}, id="same")
    assert one(*judgements, weights={"x": 3}).support["a", "b"] == Support(over=3.0, under=1.0)


def test_of_two_judgements_by_a_labeler_the_later_counts() -> None:
    first = judge("x", {"a": 1, "b": 2}, id="1", created_at="2026-01-01T09:00:00+00:00")
    # Earlier as text, later as a moment.
    second = judge("x", {"a": 2, "b": 1}, id="0", created_at="2026-01-01T08:30:00-02:00")
    for order in permutations((first, second)):
        found = one(*order)
        assert (found.ranks, found.num_judges) == ({"a": 2, "b": 1}, 1)
    at_once = second.model_copy(update={"created_at": "2026-01-01T09:00:00Z"})
    assert latest([at_once, first]) == latest([first, at_once]) == {"p": [first]}  # the greater id


def test_a_moment_that_decides_must_be_readable() -> None:
    odd = judge("x", {"a": 1}, created_at="yesterday")
    assert one(odd).ranks == {"a": 1}
    with pytest.raises(DataError, match=r"'p/x'.*'yesterday' is not ISO 8601"):
        consensus([odd, judge("x", {"a": 1})])


def test_prompts_are_settled_apart_and_sorted() -> None:
    judgements = [judge("x", {"a": 1}, prompt_id=prompt_id) for prompt_id in ("q", "p", "r")]
    assert [found.prompt_id for found in consensus(judgements)] == ["p", "q", "r"]


def test_nine_items_are_exact_and_fast() -> None:
    items = list("abcdefghi")
    judgements = [judge(f"l{i}", {item: (k * (i + 2) + i) % 9 + 1 for k, item in enumerate(items)}) for i in range(5)]
    start = time.perf_counter()
    found = one(*judgements)
    assert time.perf_counter() - start < 2  # about 0.03 s; 7,087,261 weak orders one by one would take minutes
    assert found.cost == pytest.approx(slow_cost(found.ranks, judgements, {}))
    for item in items:  # no single item can be moved to another rank, or to one of its own, for less
        for rank in [half / 2 for half in range(1, 20)]:
            moved = {**found.ranks, item: rank}
            assert slow_cost(moved, judgements, {}) >= found.cost - CLOSE  # type: ignore[arg-type]


def test_ten_items_are_refused_unless_enough_are_flagged() -> None:
    ten = dict.fromkeys("abcdefghij", 1)
    with pytest.raises(DataError, match=r"'p' has 10 ranked completions.*up to 9"):
        one(judge("x", ten))
    nine = dict.fromkeys("abcdefghi", 1)
    assert one(judge("x", nine, ("j",))).ranks == nine


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_bad_weights(weight: float) -> None:
    with pytest.raises(DataError, match=r"labeler 'x'"):
        one(judge("x", {"a": 1}), weights={"x": weight})


def test_kemeny_of_nothing() -> None:
    assert kemeny([], {}) == ({}, 0.0, None)


def test_check_names_judgement_and_what_is_missing() -> None:
    sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=40)
    prompts = [Prompt(id=id_, messages=(Message(role="user", content="Hi"),)) for id_ in ("p", "q")]
    completions = [
        Completion(id=id_, prompt_id=owner, text="Hello", model="m", finish="stop", sampling=sampling)
        for id_, owner in (("a", "p"), ("b", "p"), ("c", "q"))
    ]
    check(prompts, completions, [judge("x", {"a": 1}, ("b",))])
    with pytest.raises(DataError, match=r"judgement 'p/x' names completion 'z'"):
        check(prompts, completions, [judge("x", {"z": 1})])
    with pytest.raises(DataError, match=r"judgement 'p/x' names completion 'z'"):
        check(prompts, completions, [judge("x", {"a": 1}, ("z",))])
    with pytest.raises(DataError, match=r"names completion 'c', which is not a completion of prompt 'p'"):
        check(prompts, completions, [judge("x", {"c": 1})])
    with pytest.raises(DataError, match=r"judgement 'p/x' names prompt 'r'"):
        check(prompts, completions, [judge("x", {"a": 1}, prompt_id="r")])
