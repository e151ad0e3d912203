"""The gate before a judge: figures by hand, and who passes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from heedful.errors import DataError
from heedful.evaluation.gate import best_of, measured, on_items, require_better_than_a_coin, slope_of, told
from heedful.evaluation.hhh import Item
from heedful.judging.judge import Judge
from heedful.judging.scored import Scored, Texts
from heedful.records import Message, Preference

Questions = Sequence[tuple[Message, ...]]


def pairs(number: int, *, prompts: int | None = None) -> list[Preference]:
    return [
        Preference(
            prompt_id=f"p{n % (prompts or number)}",
            prompt=(Message(role="user", content=f"{n}?"),),
            chosen=f"good {n}",
            rejected=f"bad {n}",
        )
        for n in range(number)
    ]


def knows(*wrong: int) -> Judge:
    """Prefers what is good, but for these numbers."""

    def ask(questions: Questions) -> list[float]:
        found = []
        for messages in questions:
            a = messages[0].content.split("Answer A:\n")[1].split("\n")[0]
            if a == "N/A":
                found.append(0.0)
            else:
                found.append(2.0 if (a.startswith("good") != (int(a.split()[1]) in wrong)) else -2.0)
        return found

    return Judge("knows", ask)


def always_a(questions: Questions) -> list[float]:
    return [math.inf] * len(questions)


def test_figures_by_hand() -> None:
    found = measured(knows(0, 1), pairs(20), num_resamples=500)
    assert found["accuracy"]["estimate"] == pytest.approx(0.9)
    assert found["order_consistency"]["estimate"] == 1
    assert (found["name"], found["ties"], found["num_pairs"], found["num_prompts"]) == ("knows", 0, 20, 20)
    require_better_than_a_coin(found)
    assert told(found).startswith("The judge knows agrees with people on 90.0% [")


def test_a_judge_of_places_is_refused() -> None:
    found = measured(Judge("places", always_a), pairs(200), num_resamples=500)
    assert (found["accuracy"]["estimate"], found["order_consistency"]["estimate"], found["ties"]) == (0.5, 0, 1)
    with pytest.raises(DataError, match=r"The judge places agrees with people on 50\.0%.*in 0\.0%.*The interval holds 50%"):
        require_better_than_a_coin(found)


def test_a_coin_and_one_who_prefers_what_people_reject_are_refused() -> None:
    coin = measured(knows(*range(0, 100, 2)), pairs(100), num_resamples=500)
    assert coin["accuracy"]["estimate"] == 0.5
    with pytest.raises(DataError, match="holds 50%"):
        require_better_than_a_coin(coin)
    with pytest.raises(DataError, match="worse than a coin"):
        require_better_than_a_coin(measured(knows(*range(95)), pairs(100), num_resamples=500))


def test_pairs_of_a_prompt_share_its_luck() -> None:
    """60% right of 200 prompts is no coin's; of five prompts, of which three are all right and two all wrong, it may be."""
    wrong = [n for n in range(200) if n % 5 < 2]
    require_better_than_a_coin(measured(knows(*wrong), pairs(200), num_resamples=2_000))
    with pytest.raises(DataError, match="holds 50%"):
        require_better_than_a_coin(measured(knows(*wrong), pairs(200, prompts=5), num_resamples=2_000))


def test_one_prompt_has_no_interval() -> None:
    with pytest.raises(DataError, match="One prompt leaves no interval"):
        require_better_than_a_coin(measured(knows(), pairs(8, prompts=1)))


def test_ties_are_left_out_and_only_ties_are_told() -> None:
    level = [pair.model_copy(update={"probability": 0.5}) for pair in pairs(5)]
    assert measured(knows(), [*pairs(20)[10:], *level])["num_pairs"] == 10
    with pytest.raises(DataError, match="all labelled pairs are ties"):
        measured(knows(), level)


def test_at_most_so_many_are_drawn_and_the_same_again() -> None:
    found = [measured(knows(*range(50)), pairs(100), max_pairs=30, seed=seed, num_resamples=200) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0]["num_pairs"] == 30
    assert 0.2 < found[0]["accuracy"]["estimate"] < 0.8, "drawn from all of them, not from the first"


def scored(*wrong: int, unit: float = 1.0) -> Scored:
    """A score of 1 for what is good, but for these numbers."""

    def score(texts: Texts) -> list[float]:
        return [float(text.startswith("good") != (int(text.split()[1]) in wrong)) for _, text in texts]

    return Scored("scored", score, unit=unit)


def test_what_weighs_each_answer_alone_has_no_order_and_any_lead_counts() -> None:
    found = measured(scored(0, 1, unit=1000.0), pairs(20), num_resamples=500)
    assert (found["accuracy"]["estimate"], found["order_consistency"], found["ties"]) == (pytest.approx(0.9), None, 0)
    assert "both orders" not in told(found)
    assert found["passed"]


def test_pairs_without_a_readable_opinion_are_counted_and_are_no_ties() -> None:
    """Of twenty pairs four have no letter; of the others two are wrong."""

    def ask(questions: Questions) -> list[float]:
        mute = [any(f"{n}?" == q[0].content.split("User: ")[1].split("\n")[0] for n in (16, 17, 18, 19)) for q in questions]
        return [math.nan if silent else lean for silent, lean in zip(mute, knows(0, 1).ask(questions), strict=True)]

    found = measured(Judge("mute", ask), pairs(20), num_resamples=500)
    assert (found["invalid"], found["num_pairs"], found["ties"]) == (4, 16, 0)
    assert found["accuracy"]["estimate"] == pytest.approx(14 / 16)
    assert "of 4 more no opinion could be read" in told(found)
    with pytest.raises(DataError, match="no readable opinion of any of 20 pairs"):
        measured(Judge("mute", lambda questions: [math.nan] * len(questions)), pairs(20))


def test_the_slope_makes_a_judge_as_sure_as_it_is_right() -> None:
    """Always 2 nats sure and right in 70% of 1,000 pairs: log(0.7 / 0.3) / 2."""
    sure = 1 / (1 + math.exp(-2))
    assert slope_of([sure] * 700 + [1 - sure] * 300) == pytest.approx(math.log(7 / 3) / 2, abs=0.01)
    assert slope_of([sure] * 300 + [1 - sure] * 700) == pytest.approx(0, abs=0.01), "never turned round"
    assert math.isfinite(slope_of([1.0] * 7 + [0.0] * 3))
    assert 0.5 < slope_of([sure] * 40) < 3, "forty right of forty are not infinitely sure"


def test_the_best_is_the_most_accurate_that_passed() -> None:
    good, better, coin = (
        {"name": n, "passed": p, "accuracy": {"estimate": a}} for n, p, a in (("g", 1, 0.6), ("b", 1, 0.7), ("c", 0, 0.9))
    )
    assert best_of([good, better, coin]) == "b"
    assert best_of([coin]) is None


def test_hhh_items_by_category() -> None:
    items = [Item("kind", "So?", f"good {n}", f"bad {n}") for n in range(4)] + [Item("true", "So?", "good 4", "bad 4")]
    found = on_items(scored(1, 4), items)
    assert {name: row["num_items"] for name, row in found.items()} == {"kind": 4, "true": 1, "all": 5}
    assert (found["kind"]["accuracy"]["estimate"], found["true"]["accuracy"]["estimate"]) == (0.75, 0)
    assert found["all"]["accuracy"]["estimate"] == pytest.approx(0.6)
