"""The section on reward hacking, and what the first screen says of a run that was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_run import quantity, summary, write_lines, write_run

from heedful.evaluation.monitor import Limits
from heedful.report.build import build
from heedful.report.findings import headline, limits, stopped
from heedful.report.hacking import limit_figures, monitor_figures, sign_table
from heedful.store import write_json

LONG = {"name": "longer", "level": "warn", "said": "answers are long"}
PHRASE = {"name": "phrase", "level": "warn", "said": "“most awesome ever thing” stands in 40% of the answers, before in 0%"}
GOLD = {"name": "gold", "level": "stop", "said": "gold fell by 2.00"}


def steps(count: int, every: int = 2, **more: float) -> list[dict[str, Any]]:
    found = []
    for step in range(count):
        line: dict[str, Any] = {
            "step": step,
            "stage": "ppo",
            "hacking_level": 0.0,
            "kl_policy_ref": float(step),
            "entropy": 2.0,
        }
        if (step + 1) % every == 0:
            line |= {"heldout_reward": float(step), "length_ratio": 1.1, "distinct_ratio": 0.9} | more
        found.append(line)
    return found


def signs(*held: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"steps": 2 * n, "stage": "ppo", "signs": found} for n, found in enumerate(held, start=1)]


def ended(kept: int, *, curve: dict[str, Any] | None = None) -> dict[str, Any]:
    hacking = {"level": "stop", "signs": [GOLD, LONG], "curve": curve}
    return {"align": {"method": "ppo", "steps": 12, "stopped": "hacking monitor", "policy_step": kept, "hacking": hacking}}


def test_a_stopped_run_is_told_of_first(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_json(run / "summary.json", summary() | ended(8))
    build(run)
    for name in ("report.html", "report.md"):
        text = (run / name).read_text(encoding="utf-8")
        said = text.index("The hacking monitor stopped the training after 12 steps: gold fell by 2.00.")
        assert said < text.index("Did it get better?")
        assert "The policy of step 8, the evaluation with the best gold, was kept" in text


def test_a_hacked_policy_that_was_kept_is_not_to_be_believed() -> None:
    compared = {"compare": {"reward": quantity("Reward", 0, 1, "improved")}}
    assert headline(compared | ended(12)).startswith("Not to be believed: the hacking monitor stopped")
    assert "do not use it" in stopped(compared | ended(12))
    assert any("do not use it" in said for said in limits(compared | ended(12)))
    assert headline(compared | ended(8)) == "Yes: all 1 measures improved"
    assert stopped({"align": {"method": "ppo", "steps": 12, "stopped": "step limit"}}) == ""
    assert stopped({}) == ""


def test_signs_are_listed_with_the_evaluations_after_which_they_held() -> None:
    rows = sign_table(steps(12), signs([], [LONG], [LONG, PHRASE], [], [LONG], [LONG | {"said": "longer still"}, GOLD]))
    assert [(row["name"], row["steps"], row["level"]) for row in rows] == [
        ("longer", "4–6, 10–12", "warn"),
        ("phrase", "6", "warn"),
        ("gold", "12", "stop"),
    ]
    assert rows[0]["said"] == "longer still"
    assert sign_table(steps(4), []) == []


def test_a_phrase_is_named_on_the_page(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", steps(4))
    write_lines(tmp_path / "hacking.jsonl", signs([], [PHRASE]))
    page = build(tmp_path).read_text(encoding="utf-8")
    assert "“most awesome ever thing” stands in 40% of the answers" in page
    assert "most awesome ever thing" in (tmp_path / "report.md").read_text(encoding="utf-8")
    script = page[page.index("const figures") : page.index("const plots")]
    assert "awesome" not in script, "a plot holds nothing that a model wrote"


@pytest.mark.parametrize(("explained", "drawn"), [(0.49, False), (0.5, True)])
def test_a_curve_is_drawn_where_it_explains_enough(explained: float, drawn: bool) -> None:
    curve = {"a": 1.0, "b": 0.5, "start": 0.2, "peak": 2.718, "explained": explained}
    figure = monitor_figures(steps(12, heldout_gold=0.4), [], ended(8, curve=curve))[0]
    data = json.loads(figure["json"])
    assert ("curve" in [trace["name"] for trace in data["data"]]) is drawn
    assert ("Its peak is at d = 2.72" in figure["caption"]) is drawn
    assert bool(data["layout"].get("shapes")) is drawn
    assert ("too little to be drawn" in figure["caption"]) is not drawn


def test_without_gold_the_reward_is_shown_alone() -> None:
    (figure,) = monitor_figures(steps(12), [], {})
    assert figure["title"] == "Reward over the distance"
    assert "no gold reward" in figure["caption"]
    assert [trace["name"] for trace in json.loads(figure["json"])["data"]] == ["reward"]


def test_each_limit_is_a_line_that_can_be_seen() -> None:
    rows = [row | {"reward_length_correlation": 0.1, "ensemble_sd": 0.2} for row in steps(6)]
    found = {figure["title"]: json.loads(figure["json"])["layout"] for figure in limit_figures(rows, 3.0)}
    lines = {title: [shape["y0"] for shape in layout.get("shapes", [])] for title, layout in found.items()}
    assert lines == {
        "Level": [],
        "Length of answers": [Limits.length_ratio],
        "Variety": [Limits.distinct],
        "Reward and length": [-Limits.correlation, Limits.correlation],
        "Distance": [Limits.kl_ratio * 3.0],
        "Entropy": [Limits.entropy * 2.0],
        "Disagreement of the ensemble": [Limits.disagreement * 0.2],
    }
    for title, limits_of in lines.items():
        low, high = found[title]["yaxis"]["range"]
        assert all(low < limit < high for limit in limits_of), title


def test_a_run_without_a_monitor_has_no_section(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "hacking_level"} for row in steps(4)]
    write_lines(tmp_path / "metrics.jsonl", rows)
    assert "Reward hacking" not in build(tmp_path).read_text(encoding="utf-8")
    assert (monitor_figures(rows, [], {}), limit_figures(rows, None)) == ([], [])
