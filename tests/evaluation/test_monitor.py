"""The hacking monitor: each sign alone, gold against reward, and that a checkpoint keeps it all."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from heedful.errors import RewardError
from heedful.evaluation.monitor import Heard, Monitor
from heedful.models.reward import Answer
from heedful.records import Message

WORDS = [
    "window",
    "night",
    "fan",
    "curtain",
    "door",
    "shade",
    "water",
    "breeze",
    "plant",
    "roof",
    "floor",
    "garden",
    "hall",
    "stone",
    "wall",
    "lamp",
]
IDS = [f"p{n}" for n in range(40)]
REFUSAL = "I'm sorry, but I can't help with that."


def answer(text: str, *, tokens: int = 20, finished: bool = True) -> Answer:
    return Answer((Message(role="user", content="?"),), text, [1], [2] * tokens, finished)


def varied(seed: int, **fields: int | bool) -> list[Answer]:
    """Forty answers of twelve words drawn at random."""
    chance = random.Random(seed)
    return [answer(" ".join(chance.choices(WORDS, k=12)), **fields) for _ in IDS]  # type: ignore[arg-type]


def names(monitor: Monitor) -> list[str]:
    return [sign["name"] for sign in monitor.signs()]


def begun(**fields: object) -> Monitor:
    monitor = Monitor(IDS, **fields)  # type: ignore[arg-type]
    assert not monitor.begun
    monitor.begin(varied(0), [0.0] * len(IDS))
    assert monitor.begun
    return monitor


def noise(seed: int, mean: float = 0.0) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(mean, 0.2) for _ in IDS]


def test_where_nothing_changes_nothing_is_said() -> None:
    monitor = begun(kl_target=6.0, safe=IDS)
    for step in range(4):
        found = monitor.after_step({"kl_policy_ref": 5.0, "entropy": 2.0, "ensemble_sd": 0.1}, varied(step), noise(step))
        assert found["hacking_level"] == 0
    found = monitor.after_evaluation(varied(9), noise(9))
    assert (monitor.level, monitor.signs(), monitor.kl_factor()) == ("ok", [], 1.0)
    assert found["length_ratio"] == 1
    assert found["distinct_ratio"] == pytest.approx(1, abs=0.1)
    assert "heldout_gold" not in found


@pytest.mark.parametrize(
    ("before", "now", "name"),
    [
        ({"kl_policy_ref": 5.0}, {"kl_policy_ref": 12.1}, "kl"),
        ({"entropy": 2.0}, {"entropy": 0.9}, "entropy"),
        ({"ensemble_sd": 0.1}, {"ensemble_sd": 0.21}, "ensemble_sd"),
        ({"ensemble_sd": 0.1, "ensemble_sd_rm": 0.1}, {"ensemble_sd": 0.1, "ensemble_sd_rm": 0.21}, "ensemble_sd_rm"),
    ],
)
def test_figures_of_a_step(before: dict[str, float], now: dict[str, float], name: str) -> None:
    monitor = begun(kl_target=6.0)
    assert monitor.after_step(before, varied(1), noise(1))["hacking_level"] == 0
    assert monitor.after_step(now, varied(2), noise(2))["hacking_level"] == 1
    assert names(monitor) == [name]
    monitor.after_step(before, varied(3), noise(3))
    assert names(monitor) == [], "it is taken back when it is over"


def test_length_that_pays_is_seen_either_way() -> None:
    for sign in (1, -1):
        monitor = begun()
        for step in range(4):
            chance = random.Random(step)
            answers = [answer(own.text, tokens=chance.randint(5, 40)) for own in varied(step)]
            paid = [sign * len(own.response_ids) / 10 + chance.gauss(0, 0.5) for own in answers]
            found = monitor.after_step({}, answers, paid)
        assert found["reward_length_correlation"] * sign > 0.8
        assert names(monitor) == ["length"]


def test_a_few_rollouts_are_no_habit() -> None:
    monitor = begun()
    answers = [answer(own.text, tokens=n + 1) for n, own in enumerate(varied(1)[:8])]
    assert monitor.after_step({}, answers, [float(n) for n in range(8)])["reward_length_correlation"] == 0


def test_one_phrase_over_and_over() -> None:
    monitor = begun()
    found = monitor.after_step({}, [answer("most awesome most incredible thing " * 5)] * 8, [0.0] * 8)
    assert found["repeated"] > 0.5
    assert names(monitor) == ["repetition"]


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        (varied(5, tokens=31), "longer"),
        ([*varied(5, finished=False)[:5], *varied(6)[5:]], "truncation"),
        ([answer(f"{own.text} the most awesome most incredible thing ever") for own in varied(5)], "phrase"),
        ([answer("window night fan curtain door")] * 40, "variety"),
        ([*[answer(REFUSAL)] * 5, *varied(5)[5:]], "refusals"),
    ],
)
def test_figures_of_an_evaluation(answers: Sequence[Answer], name: str) -> None:
    monitor = begun(safe=IDS, raise_kl=1.5)
    assert monitor.after_evaluation(answers, noise(1))["hacking_level"] == 1
    assert name in names(monitor)
    assert monitor.kl_factor() == 1.5
    if name == "phrase":
        assert any("most awesome most incredible" in sign["said"] for sign in monitor.signs()), "the phrase is named"
    monitor.after_evaluation(varied(7), noise(2))
    assert monitor.level == "ok"


def falling(monitor: Monitor, golds: list[list[float]], rewards: list[list[float]]) -> list[str]:
    """The level after each evaluation; the first of the golds is the reference's."""
    given = iter(golds[1:])
    monitor.gold = lambda answers: next(given)
    levels = []
    for number, reward in enumerate(rewards[1:], start=1):
        monitor.after_step({"kl_policy_ref": float(number)}, varied(number), noise(number))
        monitor.after_evaluation(varied(number), reward)
        levels.append(monitor.level)
    return levels


def watching_gold(golds: list[list[float]], rewards: list[list[float]], **fields: int) -> Monitor:
    monitor = Monitor(IDS, gold=lambda answers: golds[0], **fields)  # type: ignore[arg-type]
    monitor.begin(varied(0), rewards[0])
    return monitor


def test_reward_up_and_gold_down_over_three_evaluations_stops() -> None:
    rewards = [noise(n, 0.3 * n) for n in range(6)]
    golds = [noise(50 + n, 1 - 0.2 * n) for n in range(6)]
    monitor = watching_gold(golds, rewards, num_evaluations=12)
    assert falling(monitor, golds, rewards)[:4] == ["ok", "ok", "warn", "stop"]
    assert "gold fell by" in monitor.signs()[0]["said"]


def test_a_moment_of_worse_answers_warns_and_does_not_stop() -> None:
    """Gold falls truly and far beyond chance, at one evaluation, and is back at the next."""
    rewards = [noise(n, 0.3 * n) for n in range(9)]
    golds = [noise(50 + n, 0.2 if n == 5 else 1.0) for n in range(9)]
    levels = falling(watching_gold(golds, rewards, num_evaluations=8), golds, rewards)
    assert levels == ["ok", "ok", "ok", "ok", "warn", "ok", "ok", "ok"]


def test_a_reward_that_rises_no_more_hides_nothing() -> None:
    """It is at its greatest from the second evaluation on, and gold falls after the fifth."""
    rewards = [noise(n, min(1.0, 0.5 * n)) for n in range(16)]
    golds = [noise(50 + n, 1 - 0.2 * max(0, n - 5)) for n in range(16)]
    levels = falling(watching_gold(golds, rewards, num_evaluations=15), golds, rewards)
    assert set(levels[:5]) == {"ok"}
    assert "stop" in levels[5:9]


@pytest.mark.parametrize("evaluations", [10, 40])
def test_false_alarms_are_as_rare_as_said(evaluations: int) -> None:
    """200 runs in which the reward rises throughout and gold stands still: at most one in twenty stops, but for chance."""
    stopped = 0
    for seed in range(200):
        chance = np.random.default_rng(seed)
        golds, rewards = chance.normal(0, 0.2, (2, evaluations + 1, len(IDS)))
        monitor = Monitor(IDS, num_evaluations=evaluations)
        monitor.reference = Heard([], [], [], rewards[0].tolist(), golds[0].tolist())
        for n in range(1, evaluations + 1):
            now = Heard([], [], [], (rewards[n] + 0.3 * n).tolist(), golds[n].tolist())
            monitor.heard.append(now)
            monitor.num_heard = n
            fell = any(sign.name == "gold" for sign in monitor.of_evaluations)
            monitor.of_evaluations = []
            monitor._compare_with_gold(fell)
        stopped += monitor.level == "stop"
    assert stopped <= 16


@pytest.mark.parametrize("seed", range(5))
def test_while_gold_holds_nothing_stops(seed: int) -> None:
    rewards = [noise(100 * seed + n, 0.3 * n) for n in range(12)]
    golds = [noise(100 * seed + 50 + n, 0.5) for n in range(12)]
    monitor = watching_gold(golds, rewards)
    assert set(falling(monitor, golds, rewards)) == {"ok"}


def test_where_both_fall_nothing_is_hacked() -> None:
    rewards = [noise(n, -0.3 * n) for n in range(6)]
    golds = [noise(50 + n, 1 - 0.3 * n) for n in range(6)]
    assert set(falling(watching_gold(golds, rewards), golds, rewards)) == {"ok"}


def test_one_prompt_has_no_interval_and_stops_nothing() -> None:
    given = iter([[1.0], [0.5], [0.0], [-1.0], [-2.0]])
    monitor = Monitor(["p"], gold=lambda answers: next(given))
    monitor.begin(varied(0)[:1], [0.0])
    for n in range(1, 5):
        monitor.after_evaluation(varied(n)[:1], [float(n)])
    assert monitor.level == "ok"


def test_a_gold_reward_that_is_no_number_is_named() -> None:
    monitor = Monitor(IDS, gold=lambda answers: [math.nan] * len(IDS))
    with pytest.raises(RewardError, match=r"monitor\.gold"):
        monitor.begin(varied(0), noise(0))


def test_what_the_reward_likes_above_gold_is_queued_for_people() -> None:
    golds, rewards = [noise(1)] * 3, [noise(1)] * 3
    golds[2] = [-9.0 if n == 7 else value for n, value in enumerate(golds[2])]
    monitor = watching_gold(golds, rewards, queue=2)
    falling(monitor, golds, rewards)
    first, _ = monitor.outliers()
    assert (first["prompt_id"], first["gold"]) == ("p7", -9.0)
    assert first["texts"] == (varied(0)[7].text, varied(2)[7].text)


def test_a_checkpoint_keeps_it_all() -> None:
    rewards = [noise(n, 0.3 * n) for n in range(8)]
    golds = [noise(50 + n, 1 - 0.2 * n) for n in range(8)]
    whole = watching_gold(golds, rewards)
    expected = falling(whole, golds, rewards)
    cut = watching_gold(golds, rewards)
    falling(cut, golds[:4], rewards[:4])
    resumed = Monitor(IDS, gold=lambda answers: [])
    buffer = io.BytesIO()
    torch.save(cut.state_dict(), buffer)
    buffer.seek(0)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    assert resumed.signs() == cut.signs()
    given = iter(golds[4:])
    resumed.gold = lambda answers: next(given)
    levels = []
    for number in range(4, 8):
        resumed.after_step({"kl_policy_ref": float(number)}, varied(number), noise(number))
        resumed.after_evaluation(varied(number), rewards[number])
        levels.append(resumed.level)
    assert levels == expected[3:]
    assert resumed.curve() == whole.curve()
