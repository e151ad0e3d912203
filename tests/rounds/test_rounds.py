"""Runs of several rounds: what each one learns from, what is carried over, and that one round is the run it always was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from in_process import assert_told, heedful
from safetensors.torch import load_file

from heedful.config import Config
from heedful.errors import ConfigError
from heedful.flows.rounds import run_rounds
from heedful.pipeline import Pipeline
from heedful.records import Completion, Judgement, Preference, read_jsonl
from heedful.rounds import Round
from heedful.store import Run, write_json


def quiet(*_: object) -> None:
    """Progress that nobody watches."""


def test_each_round_judges_the_next_prompts_and_learns_from_all_so_far(two_rounds: Path) -> None:
    first, second = (two_rounds / f"round-{n}" for n in (1, 2))
    asked = [{c.prompt_id for c in read_jsonl(path / "sample/completions.jsonl", Completion)} for path in (first, second)]
    assert [len(ids) for ids in asked] == [12, 12]
    assert not asked[0] & asked[1]
    rows = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"reward", "ppo"}
    pairs = [read_jsonl(path / "consensus/preferences.jsonl", Preference) for path in (first, second)]
    inputs = json.loads((second / "manifest.json").read_text())["stages"]["reward"]["inputs"]
    assert len(inputs) == 2
    result = json.loads((second / "reward/result.json").read_text())
    asked_in_pairs = {pair.prompt_id for own in pairs for pair in own}
    assert result["num_training_prompts"] + result["num_prompts"] == len(asked_in_pairs) > 12


def test_the_newest_policy_answers_and_learns_on(two_rounds: Path) -> None:
    first, second = (two_rounds / f"round-{n}" for n in (1, 2))
    said = read_jsonl(second / "sample/completions.jsonl", Completion)
    assert {completion.policy_version for completion in said} == {"ppo-0-2"}
    about = json.loads((second / "ppo/policy/heedful.json").read_text())
    assert about["policy_version"] == "ppo-0-2-round2"
    before, after = (load_file(path / "ppo/policy/adapter_model.safetensors") for path in (first, second))
    assert set(before) == set(after)
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    begun_anew = max(float(before[name].abs().max()) for name in before if "lora_A" in name)
    assert 0 < moved < begun_anew, "two steps from the first round's weights, and not from fresh ones"


def test_a_second_round_without_steps_is_the_first_rounds_policy(two_rounds: Path, config: Config, tmp_path: Path) -> None:
    """Carried over to the bit, with the value head beside it."""
    folder = tmp_path / "still"
    shutil.copytree(two_rounds / "round-1", folder)
    shutil.rmtree(folder / "ppo")
    still = config.model_copy(update={"ppo": config.ppo.model_copy(update={"max_steps": 0})})
    start = two_rounds / "round-1" / "ppo" / "policy"
    with Run(tmp_path / "own") as run:
        pipeline = Pipeline(still, run, quiet, reward_folder=two_rounds / "round-1", round_=Round(2, start))
        pipeline.align_alone()
    for name in ("adapter_model", "value_head"):
        old, new = (load_file(place / f"{name}.safetensors") for place in (start, tmp_path / "own/ppo/policy"))
        assert all((old[key] == new[key]).all() for key in old), name


def test_the_rounds_are_compared_on_the_same_prompts(two_rounds: Path) -> None:
    found = json.loads((two_rounds / "rounds.json").read_text())["rounds"]
    assert [row["name"] for row in found] == ["base", "round 1", "round 2"]
    assert "wins" not in found[0]["measures"]["reward"]
    for row in found[1:]:
        assert 0 <= row["measures"]["rubric"]["wins"]["estimate"] <= 1
        assert row["num_judgements"] == 12 * 4
        assert row["num_pairs"] > 0
    means = [row["measures"]["rubric"]["mean"]["estimate"] for row in found]
    assert found[2]["measures"]["rubric"]["difference"]["estimate"] == pytest.approx(means[2] - means[1])
    page = (two_rounds / "rounds.html").read_text()
    assert "<script" not in page
    assert "round 2" in page
    assert "| round 2 |" in (two_rounds / "rounds.md").read_text()


def test_the_same_command_does_nothing_again(two_rounds: Path, config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(two_rounds, folder)
    told: list[tuple[Any, ...]] = []
    share = config.round.model_copy(update={"num_prompts": 12})
    two = config.model_copy(update={"rounds": 2, "round": share})
    summary = run_rounds(two, folder, lambda *how: told.append(how), "heedful run")
    assert {note for stage, done, _, note in told if done} == {"already done"}
    assert len(summary["rounds"]) == 3
    # One more round goes on from the second one, and leaves the others as they are.
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("round-[12]/**/*.jsonl")}
    summary = run_rounds(two.model_copy(update={"rounds": 3}), folder, quiet, "heedful run", until="sample")
    assert summary == {}
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    third = read_jsonl(folder / "round-3/sample/completions.jsonl", Completion)
    assert {completion.policy_version for completion in third} == {"ppo-0-2-round2"}


def test_one_round_leaves_no_trace_of_rounds(config: Config, two_rounds: Path, tmp_path: Path) -> None:
    """The first stages of a run without rounds have the settings that they had before there were any."""
    with Run(tmp_path / "run") as run:
        assert Pipeline(config, run, quiet)(until="label") == {}
        stages = run.manifest["stages"]
    assert set(stages["sample"]["settings"]) == {"model", "prompts", "seed", *config.sample.model_dump()}
    assert set(stages["label"]["settings"]) == {"model", "prompts", "seed", *config.label.model_dump(exclude={"by"})}
    # Of the same prompts, the draws are the same: a round is a run.
    mine = {c.id: c.text for c in read_jsonl(tmp_path / "run/sample/completions.jsonl", Completion)}
    judged = read_jsonl(tmp_path / "run/label/judgements.jsonl", Judgement)
    assert len(mine) == 24 * 3
    assert len(judged) == 24 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": {"preferences": ("pairs.jsonl",)}}, "would learn nothing new"),
        ({"label": {"judgements": "people.jsonl"}}, "round.judges = 'people'"),
        ({"reward": {"terms": [{"source": "python:heedful.rewards:none"}]}}, "no term of the reward is trained"),
    ],
)
def test_rounds_that_could_learn_nothing_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_rounds(Config.model_validate({"rounds": 2, **changes}), tmp_path / "run", quiet, "heedful run")
    assert not (tmp_path / "run").exists()


def test_prompts_take_their_turns() -> None:
    prompts = list("abcde")
    assert Round(1).share(prompts, 2) == ["a", "b"]
    assert Round(2).share(prompts, 2) == ["c", "d"]
    assert Round(3).share(prompts, 2) == ["e", "a"]
    assert Round(3).share(prompts, 0) == prompts
    assert Round(2).share(prompts, 9) == prompts


def test_the_status_command_shows_each_round(two_rounds: Path, tmp_path: Path) -> None:
    shown = heedful("status", two_rounds)
    assert [line.split()[:2] for line in shown.stdout.splitlines()[2:]] == [["round-1", "done"], ["round-2", "done"]]
    run = tmp_path / "waits"
    write_json(run / "manifest.json", {"stages": {"label": {"state": "running"}}})
    told = {"done": 37, "total": 120, "project": "waits-round-1-0123456789", "server": "http://127.0.0.1:8765", "time": 1.0}
    write_json(run / "waiting.json", told)
    shown = heedful("status", run)
    assert "waiting for labels: 37 of 120 sets" in shown.stdout
    assert "project waits-round-1-0123456789 on http://127.0.0.1:8765" in shown.stdout
    write_json(run / "waiting.json", told | {"project": "waits\x1b]0;owned\x07"})
    assert "\x1b" not in heedful("status", run).stdout, "a folder of somebody else's may say anything"
    (row,) = json.loads(heedful("status", run, "--json").stdout)["rounds"]
    assert (row["state"], row["stage"], row["done"], row["total"]) == ("waiting", "label", 37, 120)
    assert_told(heedful("status", tmp_path / "absent"), "no run directory")
