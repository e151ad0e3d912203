"""What answers show by themselves, by hand: repeats, position, time, and agreement of two."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from scipy import stats

from heedful.errors import DataError
from heedful.feedback.habits import (
    MAX_WORDS_PER_SECOND,
    MIN_JUDGEMENTS,
    Agreement,
    pairwise_agreement,
    position,
    self_consistency,
    speed,
    words_of,
)
from heedful.records import Completion, Judgement, Sampling


def judge(labeler: str, prompt_id: str, ranks: Mapping[str, int], **fields: Any) -> Judgement:
    known: dict[str, Any] = {
        "id": f"{prompt_id}/{labeler}/{fields.get('created_at', '')}",
        "prompt_id": prompt_id,
        "labeler": labeler,
        "source": "human",
        "criterion": "helpful",
        "ranks": dict(ranks),
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return Judgement.model_validate(known | fields)


def shown(labeler: str, prompt_id: str, order: Sequence[str], ranks: Sequence[int], **fields: Any) -> Judgement:
    """Completions in the order shown, and their ranks."""
    return judge(labeler, prompt_id, dict(zip(order, ranks, strict=True)), shown_order=tuple(order), **fields)


def test_self_consistency_by_hand() -> None:
    """Of three pairs one is turned; what was said in between does not count. Wilson's interval of 2 of 3 from its formula."""
    judgements = [
        judge("x", "p", {"a": 1, "b": 3, "c": 2}, created_at="2026-01-03"),
        judge("x", "p", {"a": 1, "b": 2, "c": 3}, created_at="2026-01-01"),
        judge("x", "p", {"a": 3, "b": 2, "c": 1}, created_at="2026-01-02"),
        judge("x", "q", {"d": 1, "e": 2}),
        judge("y", "p", {"a": 1, "b": 2, "c": 3}),
    ]
    found = self_consistency(judgements)
    assert list(found) == ["x"]
    own = found["x"]
    assert (own.num_pairs, own.share) == (3, pytest.approx(2 / 3))
    square = stats.norm.isf(0.025) ** 2
    center, half = 2 / 3 + square / 6, math.sqrt(square * (2 / 27 + square / 36))
    assert (own.low, own.high) == pytest.approx(((center - half) / (1 + square / 3), (center + half) / (1 + square / 3)))
    assert (own.low, own.high) == pytest.approx((0.2077, 0.9385), abs=1e-4)


def test_pairs_called_level_do_not_count_as_repeated() -> None:
    first = judge("x", "p", {"a": 1, "b": 1, "c": 2}, created_at="2026-01-01")
    again = judge("x", "p", {"a": 1, "b": 2, "c": 2}, created_at="2026-01-02")
    assert self_consistency([first, again])["x"].num_pairs == 1  # a before c both times, the rest was level once
    flagged = judge("x", "p", {"b": 1}, flagged=("a", "c"), created_at="2026-01-02")
    assert self_consistency([first, flagged]) == {}


def test_repeats_of_several_sets_are_added() -> None:
    made = [judge("x", f"p{i}", {"a": 1, "b": 2}, created_at="2026-01-01") for i in range(4)]
    made += [judge("x", f"p{i}", {"a": 1 + (i == 0), "b": 2 - (i == 0)}, created_at="2026-01-02") for i in range(4)]
    assert (self_consistency(made)["x"].num_pairs, self_consistency(made)["x"].share) == (4, 0.75)


def test_which_was_the_last_must_be_readable() -> None:
    made = [judge("x", "p", {"a": 1, "b": 2}, created_at=when) for when in ("yesterday", "today")]
    with pytest.raises(DataError, match="not ISO 8601"):
        self_consistency(made)


def test_always_as_shown_is_caught() -> None:
    """Four untied in the order shown: S is 6, its variance 4 * 3 * 13 / 18."""
    chance = random.Random(0)
    made = [shown("x", f"p{i}", chance.sample("abcd", 4), [1, 2, 3, 4]) for i in range(10)]
    found = position(made)["x"]
    assert (found.num_judgements, found.lean) == (10, 1.0)
    assert found.z == pytest.approx(60 / math.sqrt(10 * 26 / 3))
    assert found.p == found.q == pytest.approx(2 * stats.norm.sf(60 / math.sqrt(10 * 26 / 3)))
    turned = [shown("x", f"p{i}", "abcd", [4, 3, 2, 1]) for i in range(10)]
    assert (position(turned)["x"].lean, position(turned)["x"].z) == (-1.0, pytest.approx(-found.z))
    assert position(turned)["x"].p == pytest.approx(found.p)


def test_position_with_ties_and_flags_by_hand() -> None:
    """Of a, b, c, d in this order c is flagged; a and b level before d: S is 2, its variance (66 - 18) / 18."""
    made = [judge("x", f"p{i}", {"a": 1, "b": 1, "d": 2}, flagged=("c",), shown_order=tuple("abcd")) for i in range(8)]
    made += [judge("x", f"level{i}", {"a": 1, "b": 1}, shown_order=("b", "a")) for i in range(5)]  # says nothing
    made += [judge("x", f"unknown{i}", {"a": 1, "b": 2}) for i in range(5)]
    found = position(made)["x"]
    assert (found.num_judgements, found.lean) == (8, 1.0)
    assert found.z == pytest.approx(16 / math.sqrt(8 * 48 / 18))
    assert position(made[1:]) == {}  # seven are too few
    assert MIN_JUDGEMENTS == 8


def test_position_is_corrected_for_the_number_of_labelers() -> None:
    chance = random.Random(0)
    made = [shown("x", f"p{i}", chance.sample("abcd", 4), [1, 2, 3, 4]) for i in range(10)]
    made += [shown(name, f"p{i}", "abcd", [1, 2, 3, 4] if i % 2 else [4, 3, 2, 1]) for i in range(10) for name in "uvw"]
    found = position(made)
    assert found["x"].q == pytest.approx(4 * found["x"].p)
    assert {(found[name].z, found[name].p, found[name].q) for name in "uvw"} == {(0.0, 1.0, 1.0)}


def test_readers_are_seldom_said_to_follow_the_order() -> None:
    """Of 100 crowds of four some five hold one by chance; binomial(100, 0.05) exceeds 11 once in 230 times."""
    alarms = 0
    for seed in range(100):
        chance = random.Random(seed)
        made = [shown(name, f"p{i}", chance.sample("abcd", 4), [1, 2, 2, 3]) for i in range(20) for name in "uvwx"]
        made = [j.model_copy(update={"ranks": dict(zip("abcd", (1, 2, 2, 3), strict=True))}) for j in made]
        alarms += any(entry.q < 0.05 for entry in position(made).values())
    assert alarms <= 11


def timed(seconds: Mapping[str, float], num_prompts: int) -> list[Judgement]:
    """Each labeler takes as long on every prompt, times the number of the prompt."""
    return [
        judge(name, f"p{i}", {f"p{i}-a": 1, f"p{i}-b": 2}, seconds=(i + 1) * value)
        for i in range(num_prompts)
        for name, value in seconds.items()
    ]


def test_speed_by_hand() -> None:
    """The others of x take 2 and 8 times as long, 4 times in the geometric mean; prompts of any length say the same."""
    found = speed(timed({"x": 5, "y": 10, "z": 40}, 3))
    assert [found[name].ratio for name in "xyz"] == pytest.approx([1 / 4, 1 / math.sqrt(2), 4 * math.sqrt(2)])
    assert [found[name].median_s for name in "xyz"] == [10, 20, 80]
    assert [found[name].too_fast_share for name in "xyz"] == [None] * 3
    assert not found["x"].too_fast
    alone = speed([judge("x", "p", {"a": 1}, seconds=0.0), judge("y", "q", {"b": 1})])
    assert list(alone) == ["x"]
    assert (alone["x"].ratio, alone["x"].num_judgements) == (None, 1)


def test_faster_than_anybody_reads_by_hand() -> None:
    """30 words: two seconds are 15 words a second and just possible, less is not. More than half of eight are five."""

    def reading(num_fast: int, num_slow: int) -> list[Judgement]:
        seconds = [1.9] * num_fast + [30 / MAX_WORDS_PER_SECOND] * num_slow
        return [judge("x", f"p{i}", {"a": 1}, flagged=("b",), seconds=value) for i, value in enumerate(seconds)]

    words = {"a": 10, "b": 20}
    for num_fast, too_fast in ((4, False), (5, True), (8, True)):
        found = speed(reading(num_fast, 8 - num_fast), words)["x"]
        assert (found.too_fast_share, found.too_fast) == (num_fast / 8, too_fast)
    assert not speed(reading(7, 0), words)["x"].too_fast  # seven are too few


def test_a_single_long_pause_moves_nothing() -> None:
    made = timed({"x": 5, "y": 10}, 9)
    paused = [j.model_copy(update={"seconds": 9_000.0}) if j.id == "p8/x/" else j for j in made]
    assert speed(paused)["x"] == speed(made)["x"]
    assert speed(paused)["x"].ratio == pytest.approx(1 / 2)


def test_words_of_a_text_shown_once() -> None:
    def completion(id_: str, prompt_id: str, text: str) -> Completion:
        sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=9)
        return Completion(id=id_, prompt_id=prompt_id, text=text, model="m", finish="stop", sampling=sampling)

    given = [completion("b", "p", " Open the  window. "), completion("a", "p", "Open the  window."), completion("c", "p", "")]
    given.append(completion("d", "q", "Open the  window."))
    assert words_of(given) == {"a": 3, "b": 0, "c": 0, "d": 3}


def test_pairwise_agreement_by_hand() -> None:
    """x and y order ab and ac alike and bc not; x and z share one decided pair, y and z none that both decide."""
    judgements = [
        judge("y", "p", {"a": 1, "b": 3, "c": 2}),
        judge("x", "p", {"a": 1, "b": 2, "c": 3}),
        judge("x", "q", {"d": 1, "e": 2}),
        judge("y", "q", {"d": 1, "e": 1}),
        judge("z", "q", {"d": 2, "e": 1}),
    ]
    assert pairwise_agreement(judgements) == [Agreement(("x", "y"), 3, 2 / 3), Agreement(("x", "z"), 1, 0.0)]
    assert pairwise_agreement([]) == []


def test_neither_the_order_of_the_input_nor_names_matter() -> None:
    chance = random.Random(1)
    judgements = [
        shown(
            name,
            f"p{i}",
            chance.sample("abcd", 4),
            chance.sample([1, 2, 2, 3], 4),
            seconds=chance.uniform(3, 30),
            created_at=when,
        )
        for i in range(9)
        for name in "xyz"
        for when in ("2026-01-01", "2026-01-02")
    ]
    words = dict.fromkeys("abcd", 30)
    expected = [self_consistency(judgements), position(judgements), speed(judgements, words)]
    assert all(sorted(found) == ["x", "y", "z"] for found in expected)
    mixed = random.Random(0).sample(judgements, len(judgements))
    assert [self_consistency(mixed), position(mixed), speed(mixed, words)] == expected
    assert pairwise_agreement(mixed) == pairwise_agreement(judgements)
    other = {"x": "c", "y": "a", "z": "b"}
    renamed = [j.model_copy(update={"labeler": other[j.labeler]}) for j in judgements]
    for one, two in zip(expected, [self_consistency(renamed), position(renamed), speed(renamed, words)], strict=True):
        assert {other[name]: entry for name, entry in one.items()} == two
    pairs = {frozenset(entry.labelers): (entry.num_pairs, entry.share) for entry in pairwise_agreement(renamed)}
    assert pairs == {frozenset(other[n] for n in e.labelers): (e.num_pairs, e.share) for e in pairwise_agreement(judgements)}
