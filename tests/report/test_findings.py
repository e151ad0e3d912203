"""The first screen's sentences and the terminal's table, without a page around them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from heedful.report import findings
from heedful.report.findings import better, cost, headline, trust
from heedful.report.numbers import duration, listing, number, signed
from heedful.report.plots import figure_of
from heedful.report.table import compare_table


def interval(estimate: float, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"estimate": estimate, "low": low, "high": high}


def quantity(label: str, before: float, after: float, verdict: str, *, better: str | None = "higher") -> dict[str, Any]:
    difference = interval(after - before, after - before - 0.1, after - before + 0.1)
    sides = {"before": interval(before), "after": interval(after)}
    return {"label": label, "better": better, "num_prompts": 3, **sides, "difference": difference, "verdict": verdict}


def reward_model(low: float | None, high: float | None, above_low: float | None, above_high: float | None) -> dict[str, Any]:
    above = interval(0.1, above_low, above_high)
    return {"accuracy": interval(0.6, low, high), "num_pairs": 40, "longest_answer": 0.5, "above_longest_answer": above}


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["improved", "improved"], "Yes: all 2 measures improved"),
        (["improved", "no clear change"], "In part: only the reward it was trained on improved"),
        (["no clear change", "improved"], "In part: 1 of 2 measures improved"),
        (["worse", "no clear change"], "No: 1 of 2 measures got worse, none improved"),
        (["no clear change", "no clear change"], "Not shown: none of 2 measures clearly changed"),
        (["one prompt only: no interval", "worse"], "No: 1 of 2 measures got worse, none improved"),
    ],
)
def test_headline_follows_the_verdicts(verdicts: list[str], said: str) -> None:
    rows = zip(("reward", "rubric"), ("Reward", "Rubric score"), verdicts, strict=True)
    assert headline({"compare": {name: quantity(label, 0, 1, verdict) for name, label, verdict in rows}}) == said


def test_what_the_monitor_saw_is_said() -> None:
    def told(level: str, *signs: tuple[str, str], peak: float | None = None, explained: float = 0.9) -> list[str]:
        rows = [{"name": name, "level": level, "said": said} for name, said in signs]
        return trust({"align": {"hacking": {"level": level, "signs": rows, "curve": {"peak": peak, "explained": explained}}}})

    assert told("ok") == ["The hacking monitor saw nothing in the last evaluation of the training."]
    assert told("warn", ("longer", "answers are long"), ("phrase", "told elsewhere")) == [
        "The hacking monitor warns: answers are long."
    ]
    assert told("stop", ("gold", "gold fell"), peak=2.0) == [
        "The hacking monitor ended the training: gold fell.",
        "Gold is greatest about 4.0 nats from the base, by the curve that fits the evaluations.",
    ]
    assert len(told("stop", ("gold", "gold fell"), peak=2.0, explained=0.2)) == 1, "a curve that fits badly has no peak to tell"
    assert trust({"align": {"steps": 1}}) == []


def test_gains_losses_and_the_unclear_are_all_named() -> None:
    compared = {
        "a": quantity("Reward", 0, 1, "improved"),
        "b": quantity("Toxicity", 0, 1, "worse", better="lower"),
        "c": quantity("Rubric score", 0, 1, "no clear change"),
        "d": quantity("Answers that end by themselves", 0, 1, "no clear change"),
        "e": quantity("Refusals of harmful prompts", 0, 1, "one prompt only: no interval"),
        "f": quantity("Length in tokens", 0, 1, "grew", better=None),
    }
    assert better({"compare": compared}) == [
        "Reward improved.",
        "Toxicity got worse.",
        "Rubric score and answers that end by themselves did not clearly change.",
        "Refusals of harmful prompts: too few prompts to tell.",
    ]


def test_a_repeated_phrase_is_named_with_both_shares() -> None:
    rows = [
        {"phrase": "most awesome most incredible", "before": 0.0, "after": 0.4},
        {"phrase": "a b c d", "before": 0.01, "after": 0.3},
    ]
    (said,) = trust({"phrases": rows})
    assert "reward hacking" in said
    assert "“most awesome most incredible” (0% → 40%) and “a b c d” (1% → 30%)" in said
    assert trust({"phrases": []}) == []
    compared = {"reward": quantity("Reward", 0, 1, "improved"), "rubric": quantity("Rubric score", 0, 1, "improved")}
    said = headline({"phrases": rows, "compare": compared})
    assert said == "Not to be believed: 40% of the answers say “most awesome most incredible”"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (reward_model(0.51, 0.7, 0.01, 0.2), ": better than a coin, better than “the longer answer wins” (50.0%)."),
        (
            reward_model(0.49, 0.7, -0.1, 0.2),
            ": not clearly better than a coin, not clearly better than “the longer answer wins”",
        ),
        (reward_model(0.3, 0.4, -0.3, -0.1), ": worse than a coin, worse than “the longer answer wins”"),
        (reward_model(0.51, 0.7, None, None), "too few prompts to set against “the longer answer wins”"),
    ],
)
def test_reward_model_is_held_against_chance_and_length(model: dict[str, Any], said: str) -> None:
    assert said in trust({"reward_model": model})[0]


def test_reward_that_rises_alone_is_suspected() -> None:
    compared = {"reward": quantity("Reward", 0, 1, "improved"), "rubric": quantity("Rubric score", 0, 1, "improved")}
    weak = {"compare": compared, "reward_model": reward_model(0.45, 0.74, 0.0, 0.1)}
    assert "So the higher reward alone proves little." in trust(weak)
    assert "reward hacking" not in " ".join(trust(weak))
    strong = {
        "compare": compared | {"rubric": quantity("Rubric score", 1, 0, "worse")},
        "reward_model": reward_model(0.6, 0.8, 0, 1),
    }
    assert "proves little" not in " ".join(trust(strong))
    assert "reward hacking" in " ".join(trust(strong))


@pytest.mark.parametrize(("after", "said"), [(30.0, True), (31.0, False), (49.0, False), (50.0, True)])
def test_telling_change_of_length(after: float, said: bool) -> None:
    verdict = "grew" if after > 40 else "shrank"
    length = quantity("Length in tokens", 40.0, after, verdict, better=None)
    rising = {"reward": quantity("Reward", 0, 1, "improved"), "length": length}
    assert ("by length alone" in " ".join(trust({"compare": rising}))) is said


@pytest.mark.parametrize(
    ("target", "said"),
    [(6.0, ", above the target of 6."), (9.5, ", within the target of 9.5."), (0.0, " base."), (None, " base.")],
)
def test_distance_is_held_against_the_target(target: float | None, said: str) -> None:
    (sentence,) = cost({"kl": interval(9.0, 8.0, 10.0), "kl_target": target})
    assert sentence.startswith("The model moved 9.00 nats [8.00, 10.00] a sequence away from its base")
    assert sentence.endswith(said)


def test_numbers_for_readers() -> None:
    assert [number(value) for value in (0.125, -0.001, math.nan, math.inf, None, "1", True)] == ["0.12", "0.00", *"-----"]
    assert [signed(value, 1) for value in (-0.04, 0.26, None)] == ["+0.0", "+0.3", "-"]
    assert [duration(value) for value in (0.2, 59.4, 59.6, 3599.6, 7500, None)] == [
        *("under 1 s", "59 s", "1 min 0 s", "1 h 0 min", "2 h 5 min", "-")
    ]
    assert [listing(list(names)) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


def test_terminal_table_fits_80_columns() -> None:
    labels = {
        **{"reward": "Reward", "rubric": "Rubric score", "toxicity": "Toxicity", "length": "Length in tokens"},
        **{"refusal_harmful": "Refusals of harmful prompts", "refusal_safe": "Refusals of safe prompts"},
        "finished": "Answers that end by themselves",
    }
    for verdict in ("no clear change", "one prompt only: no interval", "improved"):
        wide = {
            name: quantity(label, -10.5, 112.25 if name in ("length", "reward") else 1.0, verdict)
            for name, label in labels.items()
        }
        rows = [*compare_table({"compare": wide}), ("", "before", "after", "difference", "")]
        widths = [max(len(line[column]) for line in rows) for column in range(5)]
        assert sum(widths) + 2 * 4 <= 80


def test_cells_of_the_table() -> None:
    compared = {
        "reward": quantity("Reward", 0.1234, 0.9876, "improved"),
        "refusal_safe": quantity("Refusals", 0.0, 0.5, "worse"),
    }
    compared["reward"]["difference"] = interval(0.5)
    compared["refusal_safe"]["difference"] = interval(-0.001, -0.002, 0.0)
    assert compare_table({"compare": compared}) == [
        ("Reward", "0.123", "0.988", "+0.500", "improved"),
        ("Refuses safe", "0%", "50%", "+0 [+0, +0]", "worse"),
    ]
    assert compare_table({}) == []


def test_report_does_not_load_torch() -> None:
    code = "import sys, heedful.report.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class CarelessFigure:
    layout = SimpleNamespace(height=None)

    def to_json(self) -> str:
        return json.dumps({"title": "</script><!--"})


def test_json_of_a_plot_cannot_end_its_script_even_if_plotly_stopped_escaping() -> None:
    escaped = figure_of("title", "caption", CarelessFigure())["json"]
    assert "<" not in escaped
    assert json.loads(escaped) == {"title": "</script><!--"}


def test_a_reward_model_of_two_classes_is_told_in_texts() -> None:
    """`reward.labelled`: there are no pairs, and no longer answer to hold it against."""
    model = {"num_texts": 1193, "majority_class": 0.826, "accuracy": interval(0.936, 0.921, 0.949)}
    model |= {"f1": interval(0.805, 0.761, 0.845), "auc": interval(0.973, 0.964, 0.982)}
    summary = {"reward_model": model}
    assert trust(summary)[0] == (
        "The reward model sorts 93.6% [92.1, 94.9] of 1193 held-out texts as people did: better than always the larger class "
        "(82.6%)."
    )
    assert findings.reward_model(summary) == (
        "Of 1193 held-out texts it sorts 93.6% [92.1, 94.9] as people did; the larger class is 82.6%. F1 80.5% [76.1, 84.5], "
        "AUC 97.3% [96.4, 98.2]."
    )


def test_whose_preferences_a_run_learned_from_and_whether_the_gate_had_refused_the_judge() -> None:
    passed = {"judge": "rm (reward)", "num_preferences": 80, "gate_accuracy": interval(0.6, 0.55, 0.65), "forced": False}
    (said,) = trust({"feedback": passed})
    by = "80 preferences come from an AI judge, rm (reward)"
    assert said == f"{by}, which is right on 60.0% [55.0, 65.0] of pairs that people have judged."
    first, second = trust(
        {"feedback": passed | {"forced": True, "why_refused": "The interval holds 50%", "gate_accuracy": None}}
    )
    assert first == f"{by}."
    assert second.startswith("That judge was not shown to be better than a coin and was used by force (The interval holds 50%)")
