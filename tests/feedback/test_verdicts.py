"""Verdicts in words: what leads to each, on records of labelers made for it, and the order in which they are given."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from heedful.feedback.clickers import Clicker
from heedful.feedback.habits import Position, Repeats, Speed
from heedful.feedback.labelers import labeler_quality
from heedful.feedback.leave_one_out import LeftOut
from heedful.feedback.verdicts import DIFFERENT, FINE, LESS, RANDOM, TOO_FEW, Evidence, verdict
from heedful.records import Judgement, LabelerQuality

NUM_ITEMS = 4
PLAIN = LeftOut(num_judgements=20, agreement=0.8, reliability=0.7, z=8.0, p=0.9, q=0.9)
POOR: dict[str, Any] = {"agreement": 0.55, "z": 1.0, "q": 0.001}
SURE = Repeats(num_pairs=48, share=0.96, low=0.86, high=0.99)


def judged(**changed: Any) -> tuple[str, tuple[str, ...]]:
    """The verdict on a good labeler, but for what is changed."""
    others = {name: changed.pop(name) for name in list(changed) if name in vars(PLAIN)}
    return verdict(Evidence(replace(PLAIN, **others), **changed))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, FINE),
        ({"q": None}, TOO_FEW),
        ({"q": None, "z": -9.0, "clicker": Clicker(0, 90, 0.0, 0.99), "repeats": SURE}, TOO_FEW),
        ({"q": 0.049}, LESS),
        ({"q": 0.051, "z": 1.0}, FINE),
        (POOR, RANDOM),
        (POOR | {"z": 1.7}, LESS),  # one-sided p of 0.045: too much agreement for clicks
        (POOR | {"z": 1.6}, RANDOM),
        (POOR | {"z": None, "agreement": None}, RANDOM),
        (POOR | {"clicker": Clicker(0, 90, 1.0, 0.5)}, LESS),  # with votes enough the random-click test decides
        (POOR | {"z": 4.0, "clicker": Clicker(0, 90, 1.0, 0.7)}, RANDOM),
        (POOR | {"z": None, "clicker": Clicker(0, 90, 0.0, 0.1)}, RANDOM),  # it knows nothing of who calls all level
        ({"clicker": Clicker(0, 90, 1.0, 0.7)}, RANDOM),
        ({"clicker": Clicker(0, 90, 1.0, 0.6)}, FINE),
        (POOR | {"z": -3.2, "clicker": Clicker(0, 90, -3.0, 0.99)}, DIFFERENT),  # below the thousandth of a normal, 3.09
        (POOR | {"z": -3.0, "clicker": Clicker(0, 90, -3.0, 0.99)}, RANDOM),
        (POOR | {"repeats": SURE}, DIFFERENT),
        (POOR | {"z": 4.0, "repeats": SURE}, DIFFERENT),
        (POOR | {"repeats": Repeats(48, 0.7, 0.56, 0.81)}, RANDOM),
        ({"repeats": SURE}, FINE),
        (POOR | {"repeats": SURE, "position": Position(20, 0.9, 9.0, 1e-9, 1e-9)}, RANDOM),  # consistent with the page
        (POOR | {"repeats": SURE, "position": Position(20, 0.3, 3.0, 0.003, 0.01)}, DIFFERENT),  # a slight leaning
        (POOR | {"repeats": SURE, "position": Position(20, 0.9, 1.0, 0.3, 0.3)}, DIFFERENT),
        ({"position": Position(20, 0.9, 9.0, 1e-9, 1e-9), "speed": Speed(20, 1.0, 0.1, 1.0)}, FINE),  # said as reasons only
    ],
)
def test_what_leads_to_which_verdict(changed: dict[str, Any], expected: str) -> None:
    assert judged(**changed)[0] == expected


def test_reasons_say_the_figures() -> None:
    found = judged(
        agreement=0.52,
        z=0.4,
        q=0.0004,
        clicker=Clicker(0, 120, 0.3, 0.987),
        repeats=Repeats(num_pairs=24, share=0.5, low=0.314, high=0.686),
        position=Position(20, -0.5, -5.0, 1e-6, 4e-6),
        speed=Speed(20, 1.24, 0.2, 0.75),
    )
    assert found == (
        RANDOM,
        (
            "agrees with the others on 52% of pairs; random clicks explain the 120 votes with probability 0.99",
            "agrees with itself on 50% of 24 repeated pairs (95% 31% to 69%)",
            "ranks 75% of pairs against the order shown (q below 0.001)",
            "75% of judgements too fast to have read: more than 15 words a second (median 1.2 s)",
        ),
    )
    quick = judged(speed=Speed(20, 1.24, 0.2, 0.1))
    assert quick == (
        FINE,
        ("agrees with the others on 80% of pairs", "takes 20% of the others' time on the same prompts (median 1.2 s)"),
    )
    assert judged(speed=Speed(7, 1.24, 0.2, 1.0))[1] == quick[1][:1]
    assert judged(num_judgements=3, agreement=None, z=None, q=None) == (
        TOO_FEW,
        ("3 judged, too few of them on prompts that two others put in order",),
    )


def rank(seen: Any) -> list[int]:
    return [int(place) for place in stats.rankdata(-np.asarray(seen))]


class Labelling:
    """Prompts whose completions have a true worth; labelers who see it through noise, and one who does as it is told.

    Completions stand on the page in an order drawn for each judgement. With repeats, the first ten prompts are judged twice.
    """

    def __init__(self, seed: int, num_prompts: int = 30, *, repeats: bool = False) -> None:
        self.chance = np.random.default_rng(seed)
        self.truth = self.chance.normal(size=(num_prompts, NUM_ITEMS))
        self.rounds = [*range(num_prompts), *(range(10) if repeats else ())]
        self.made: list[Judgement] = []
        for name in "abc":
            self.add(name, lambda truth, places: truth + 0.4 * self.chance.normal(size=NUM_ITEMS))

    def add(self, name: str, see: Any, *, seconds: float = 20.0, same_order: bool = False) -> None:
        """see: from the truth and the places on the page to what is ranked, highest first."""
        for time, number in enumerate(self.rounds):
            order = np.random.default_rng(number).permutation(NUM_ITEMS) if same_order else self.chance.permutation(NUM_ITEMS)
            places = np.argsort(order)
            ids = [f"p{number:02}-{item}" for item in range(NUM_ITEMS)]
            self.made.append(
                Judgement(
                    id=f"{name}/{time}",
                    prompt_id=f"p{number:02}",
                    labeler=name,
                    source="human",
                    criterion="helpful",
                    ranks=dict(zip(ids, rank(see(self.truth[number], places)), strict=True)),
                    shown_order=tuple(ids[item] for item in order),
                    seconds=seconds,
                    created_at=f"2026-01-01T{time // 60:02}:{time % 60:02}:00+00:00",
                )
            )

    def found(self, words: Mapping[str, int] | None = None) -> dict[str, LabelerQuality]:
        found = {quality.labeler: quality for quality in labeler_quality(self.made, words=words)}
        for name in "abc":
            assert not found[name].suspect
            assert found[name].verdict in (FINE, TOO_FEW)
        return found


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("num_prompts", [10, 30])
def test_an_inverted_view_is_no_random_clicking(repeats: bool, num_prompts: int) -> None:
    labelling = Labelling(0, num_prompts, repeats=repeats)
    labelling.add("z", lambda truth, places: -truth)
    found = labelling.found()["z"]
    assert (found.verdict, found.suspect) == (DIFFERENT, True)
    assert (found.self_consistency, found.num_repeated_pairs) == ((1.0, 60) if repeats else (None, 0))
    assert "less than random clicks would" in found.reasons[0]
    assert found.discrimination is not None
    assert found.discrimination < 0.3  # no use for the scores
    assert found.bradley_terry_reliability is not None
    assert found.bradley_terry_reliability < 0.2


def test_a_view_of_its_own_shows_in_the_repeats() -> None:
    """Completions ranked by something that has nothing to do with what the others see, the same way each time."""
    own = {name: Labelling(1, repeats=name == "with") for name in ("with", "without")}
    for labelling in own.values():
        labelling.add("z", lambda truth, places: np.sin(1e4 * truth))
    assert own["with"].found()["z"].verdict == DIFFERENT
    assert own["without"].found()["z"].verdict == RANDOM  # nothing tells it from clicks
    assert "agrees with itself on 100% of 60 repeated pairs (95% 94% to 100%)" in own["with"].found()["z"].reasons


def test_a_random_clicker_is_not_consistent() -> None:
    labelling = Labelling(2, repeats=True)
    labelling.add("z", lambda truth, places: labelling.chance.normal(size=NUM_ITEMS))
    found = labelling.found()["z"]
    assert (found.verdict, found.suspect) == (RANDOM, True)
    assert found.random_click_probability is not None
    assert found.random_click_probability > 0.9
    assert found.self_consistency == pytest.approx(0.5, abs=0.25)
    assert found.position_q is not None
    assert found.position_q > 0.05


@pytest.mark.parametrize("same_order", [False, True])
def test_an_order_that_nobody_touched_is_no_view(same_order: bool) -> None:
    """Even when the second time the page looks the same, and the answers agree with themselves perfectly."""
    labelling = Labelling(3, repeats=True)
    labelling.add("z", lambda truth, places: -places, same_order=same_order)
    found = labelling.found()["z"]
    assert (found.position_lean, found.verdict, found.suspect) == (1.0, RANDOM, True)
    assert found.position_q is not None
    assert found.position_q < 1e-6
    assert (found.self_consistency == 1.0) == same_order
    assert "ranks 100% of pairs as shown (q below 0.001)" in found.reasons


def test_who_cannot_have_read() -> None:
    labelling = Labelling(4)
    labelling.add("z", lambda truth, places: truth, seconds=5.0)
    words = {id_: 30 for judgement in labelling.made for id_ in judgement.ranks}
    found = labelling.found(words)["z"]
    assert (found.median_seconds, found.seconds_ratio, found.too_fast_share) == (5.0, pytest.approx(0.25), 1.0)
    assert found.verdict == FINE  # the answers are good all the same
    assert found.reasons[1] == "100% of judgements too fast to have read: more than 15 words a second (median 5.0 s)"
    assert labelling.found(words)["a"].too_fast_share == 0.0
    assert labelling.found()["z"].too_fast_share is None
    assert labelling.found()["z"].reasons[1] == "takes 25% of the others' time on the same prompts (median 5.0 s)"


def test_too_few_to_tell_whatever_the_habits() -> None:
    labelling = Labelling(5, 7)
    labelling.add("z", lambda truth, places: -truth)
    found = labelling.found()
    assert {quality.verdict for quality in found.values()} == {TOO_FEW}
    assert not any(quality.suspect for quality in found.values())


def test_few_votes_are_left_to_z() -> None:
    """Nine prompts of three completions are 27 votes, of which z orders 12 as the others do: S is 3 - 3 - 1 three times."""
    order = [1, 2, 3]
    made = []
    for number in range(9):
        for name in "abcz":
            ranks = [order, [3, 2, 1], [2, 3, 1]][number % 3] if name == "z" else order
            made.append(
                Judgement(
                    id=f"{number}{name}",
                    prompt_id=f"p{number}",
                    labeler=name,
                    source="human",
                    criterion="helpful",
                    ranks={f"p{number}-{item}": place for item, place in enumerate(ranks)},
                    created_at="2026-01-01",
                )
            )
    found = {quality.labeler: quality for quality in labeler_quality(made)}
    assert found["z"].random_click_probability is None
    assert found["z"].z == pytest.approx(-3 / np.sqrt(9 * 11 / 3))
    assert (found["z"].suspect, found["z"].verdict) == (True, RANDOM)
    assert found["z"].reasons[0].endswith(f"no more than random clicks would (z {found['z'].z:.1f})")


def test_neither_the_order_of_the_input_nor_names_matter() -> None:
    """To the last bit: scores, folds and draws follow from what was said and not from who said it."""
    labelling = Labelling(6, repeats=True)
    labelling.add("z", lambda truth, places: labelling.chance.normal(size=NUM_ITEMS))
    expected = labelling.found()
    assert all(quality.random_click_probability is not None for quality in expected.values())
    mixed = random.Random(0).sample(labelling.made, len(labelling.made))
    assert {quality.labeler: quality for quality in labeler_quality(mixed)} == expected
    other = {"a": "z", "b": "c", "c": "m", "z": "a"}
    renamed = labeler_quality([j.model_copy(update={"labeler": other[j.labeler]}) for j in labelling.made])
    for quality in renamed:
        (name,) = [before for before, after in other.items() if after == quality.labeler]
        assert quality == expected[name].model_copy(update={"labeler": quality.labeler})


def test_records_from_before_these_fields_can_be_read() -> None:
    old = {"labeler": "x", "num_judgements": 1, "agreement": None, "reliability": 0.0, "z": None, "p": None, "q": None}
    read = LabelerQuality.model_validate(old | {"suspect": False, "verdict": TOO_FEW})
    assert (read.reasons, read.discrimination, read.num_repeated_pairs) == ((), None, 0)
