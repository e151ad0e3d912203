"""The report: its numbers are the run's, model output stays text, and what is missing is said."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_run import HOSTILE, PPO_ROWS, interval, labeler, row, summary, write_lines, write_run

from heedful.errors import StoreError
from heedful.report.build import build
from heedful.store import write_json

MAX_PAGE_BYTES = 5_000_000


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path)


class Reader(HTMLParser):
    """What a browser makes of the page: its elements with their text, scripts apart."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(run: Path) -> Reader:
    reader = Reader()
    reader.feed(build(run).read_text(encoding="utf-8"))
    return reader


def figures(reader: Reader) -> dict[str, Any]:
    lines = re.findall(r'^"([a-z]+-\d+)": (\{.*\}),$', reader.scripts[-1], flags=re.MULTILINE)
    return {name: json.loads(body) for name, body in lines}


def test_numbers_on_the_page_are_the_runs(run: Path) -> None:
    text = read(run).text
    shown = [
        *(
            "0.123 0.988 +0.864 [+0.764, +0.964] improved",
            "0% 50% +50 [+40, +60] worse",
            "40.0 18.0 -22.0 [-22.1, -21.9] shrank",
        ),
        *("3.21 nats [2.54, 4.03]", "70.0% [55.0, 82.0]", "43 held-out pairs", "45.0%", "+25.0 [-5.0, +40.0] points"),
        *(
            "anna 8 0.44 0.00 0.0042",
            "0.31 [0.22, 0.41]",
            "2.00 GiB (1.9 predicted)",
            "train 24, heldout 9",
            "ppo 6 min 14 s",
            "6 min 26 s",
        ),
        *("heedful run 'my config.toml'", "seed 7", "heedful 0.9.1", "before, reward 0.90", "after, reward 0.20 (-0.70)"),
    ]
    for words in shown:
        assert words in text, words


def test_plots_hold_the_runs_numbers(run: Path) -> None:
    found = figures(read(run))
    training, held_out = found["ppo-0"]["data"]
    assert (training["x"], training["y"]) == ([1, 2], [0.5, 0.75])
    assert (held_out["x"], held_out["y"], held_out["mode"]) == ([2], [0.625], "markers")
    kl = found["ppo-1"]
    assert kl["data"][0]["y"] == [0.0, 1.5]
    assert kl["layout"]["shapes"][0]["y0"] == 6.0
    assert [figure["data"][0]["y"] for name, figure in found.items() if name.startswith("health")] == [[2.0, 1.9], [9.0]]
    assert [curve["y"] for curve in found["reward-1"]["data"]] == [[0.5], [0.55]]
    before, after = found["evaluate-0"]["data"]
    assert (before["x"], after["x"]) == ([0.1, 0.9, 0.8], [0.4, 0.2, 0.3, 0.7])  # the NaN is left out


def test_model_output_stays_text(run: Path) -> None:
    reader = read(run)
    assert " ".join(HOSTILE.replace("\ud800", "?").split()) in reader.text
    assert len(reader.scripts) == 2
    assert not any("alert" in script for script in reader.scripts)
    assert "img" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]


def test_hostile_names_stay_text(run: Path) -> None:
    changed = summary() | {"model": HOSTILE, "command": HOSTILE, "labelers": [labeler(HOSTILE, suspect=True, verdict=HOSTILE)]}
    changed["compare"]["reward"] |= {"label": HOSTILE, "verdict": HOSTILE}
    (run / "summary.json").write_text(json.dumps(changed))
    reader = read(run)
    assert len(reader.scripts) == 2
    assert "img" not in reader.tags


def test_page_is_one_file_that_needs_no_network(run: Path) -> None:
    reader = read(run)
    assert not [value for name, value in reader.attributes if name in ("src", "href", "action")]
    assert "link" not in reader.tags
    assert "plotly.js" in reader.scripts[0][:200]
    assert build(run).stat().st_size < MAX_PAGE_BYTES


def test_first_screen_names_what_got_worse(run: Path) -> None:
    text = read(run).text
    assert "Mixed: 1 of 3 measures improved, 1 got worse" in text
    for words in (
        "Reward improved. Refusals of safe prompts got worse. Toxicity did not clearly change.",
        "within the target of 6.",
        "Answers grew shorter: 40.0 to 18.0 tokens.",
        "better than a coin, not clearly better than “the longer answer wins”",
        "1 of 2 labelers is suspect: simulated-4.",
        "Answers are 55% shorter: a model can win reward by length alone",
    ):
        assert words in text, words


def test_simulated_labelers_are_named_as_such(run: Path) -> None:
    assert "came from simulated labelers" in read(run).text
    write_json(run / "summary.json", summary() | {"simulated_labelers": False})
    assert "simulated labelers" not in read(run).text


def test_worst_regressions_come_first_and_nothing_is_shown_twice_below(run: Path) -> None:
    text = read(run).text
    worst = text[text.index("The largest losses of reward") :]
    assert [float(found) for found in re.findall(r"\(([-+]\d\.\d\d)\)", worst)] == [-0.7, -0.1]
    assert "All other held-out answers" not in text  # all four are among the random examples
    many = [row(f"p{i}", 1, 0.0, f"old {i}") for i in range(20)], [row(f"p{i}", 1, i / 10 - 1, f"new {i}") for i in range(20)]
    for side, rows in zip(("before", "after"), many, strict=True):
        write_lines(run / "evaluate" / f"{side}.jsonl", rows)
    text = read(run).text
    worst = text[text.index("The largest losses of reward") : text.index("All other held-out answers")]
    assert [float(found) for found in re.findall(r"\(([-+]\d\.\d\d)\)", worst)] == [-1.0, -0.9, -0.8]
    assert all(re.search(rf"\bnew {i}\b", text) for i in range(20))
    random_ones = text[text.index("drawn at random") : text.index("The largest losses of reward")]
    assert len(re.findall(r"\bnew \d+", random_ones)) == 6
    assert build(run).read_text() == build(run).read_text()


def test_reward_that_is_no_number_is_a_dash(run: Path) -> None:
    assert re.search(r"before, reward - .* after, reward 0\.30 \(-\)", read(run).text)
    write_lines(run / "metrics.jsonl", [PPO_ROWS[0] | {"reward": math.nan, "entropy": None, "kl_policy_ref": math.inf}])
    changed = summary()
    changed["compare"]["reward"] |= {key: interval(math.nan, math.nan, math.nan) for key in ("before", "after", "difference")}
    changed["kl"] = interval(math.nan)
    (run / "summary.json").write_text(json.dumps(changed))
    reader = read(run)
    assert "Reward - - - improved" in reader.text
    assert "NaN" not in json.dumps(figures(reader))


def test_one_ppo_step(run: Path) -> None:
    write_lines(run / "metrics.jsonl", PPO_ROWS[:1])
    write_json(
        run / "summary.json", summary() | {"align": {"method": "ppo", "steps": 1, "stopped": "step limit"}, "kl_target": None}
    )
    reader = read(run)
    assert "PPO took 1 step and" in reader.text
    assert "target" not in reader.text
    assert figures(reader)["ppo-0"]["layout"]["xaxis"]["range"] == [0.5, 1.5]


def test_missing_stages_leave_a_sentence(tmp_path: Path) -> None:
    reader = read(tmp_path)
    for stage in ("evaluate", "ppo", "reward", "consensus", "report"):
        assert f"The {stage} stage has not run yet." in reader.text
    assert reader.scripts == []


@pytest.mark.parametrize("absent", ["summary.json", "metrics.jsonl", "evaluate/before.jsonl", "evaluate/after.jsonl"])
def test_each_file_may_be_absent(run: Path, absent: str) -> None:
    (run / absent).unlink()
    stage = {"summary.json": "report", "metrics.jsonl": "ppo"}.get(absent, "evaluate")
    assert f"The {stage} stage has not run yet." in read(run).text


@pytest.mark.parametrize("key", summary())
def test_each_part_of_the_summary_may_be_absent(run: Path, key: str) -> None:
    write_json(run / "summary.json", {name: value for name, value in summary().items() if name != key})
    assert "drawn at random" in read(run).text


def test_manifest_tells_a_stage_that_runs_from_one_that_did_not(tmp_path: Path) -> None:
    stages = {"sample": {"state": "done"}, "consensus": {"state": "done"}, "reward": {"state": "running"}}
    write_json(tmp_path / "manifest.json", {"stages": stages, "versions": {"torch": "2.13"}})
    text = read(tmp_path).text
    assert "The consensus stage has run; its numbers come with the report stage." in text
    assert "The reward stage has not finished yet." in text
    write_json(tmp_path / "manifest.json", {"stages": {"reward": {"state": "done"}}})
    assert "The preferences came ready-made" in read(tmp_path).text


def test_broken_line_is_named(run: Path) -> None:
    (run / "evaluate" / "after.jsonl").write_text(json.dumps(row("p1", 1, 0.1, "a")) + '\n{"prompt_id": "p2"}\n')
    with pytest.raises(StoreError, match=r"after\.jsonl:2: expected a JSON object with prompt_id, prompt and text"):
        build(run)


def test_what_the_policy_said_on_the_way_is_shown_and_stays_text(tmp_path: Path) -> None:
    rows = [
        {"steps": steps, "stage": "ppo", "prompt": f"Prompt {place}?", "text": f"{HOSTILE} {steps}", "reward": steps / 10}
        for steps in range(10, 110, 10)
        for place in range(4)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = build(tmp_path).read_text(encoding="utf-8")
    assert "What it said on the way" in page
    assert [f"Prompt {place}?" in page for place in range(4)] == [True, True, True, False]
    assert re.findall(r"after (\d+) steps, reward (\d+\.\d\d)", page)[:5] == [
        ("10", "1.00"),
        ("30", "3.00"),
        ("50", "5.00"),
        ("80", "8.00"),
        ("100", "10.00"),
    ]
    assert "<script>alert" not in page
    assert "What it said on the way" not in build(_empty(tmp_path)).read_text(encoding="utf-8")


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "none").mkdir()
    return tmp_path / "none"


def test_preferences_of_a_judge_that_was_forced_are_told_on_the_page(run: Path) -> None:
    """The pairs lie in another folder, which the settings of the run name."""
    folder = run.parent / "stage2" / "prefer"
    judged = {
        "judge": "small <b>",
        "num_preferences": 12,
        "forced": True,
        "why_refused": "it may be a coin",
        "gate_accuracy": None,
    }
    write_json(folder / "result.json", judged)
    before = build(run).read_text(encoding="utf-8")
    (run / "heedful.toml").write_text(f'[reward]\npreferences = ["{folder}/preferences.jsonl"]\n', encoding="utf-8")
    after = build(run).read_text(encoding="utf-8")
    assert "come from an AI judge" not in before
    assert "12 preferences come from an AI judge, small &lt;b&gt;" in after
    assert "was used by force (it may be a coin)" in after
