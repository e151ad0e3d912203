"""The gate before a judge: figures by hand, and who passes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from heedful.errors import DataError
from heedful.evaluation.gate import measured, require_better_than_a_coin, told
from heedful.judging.judge import Judge
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
