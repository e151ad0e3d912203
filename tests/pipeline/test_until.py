"""A run that stops after a stage, and goes on with what people made of it meanwhile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from heedful.config import Config, load, parse
from heedful.errors import ConfigError
from heedful.pipeline import Pipeline
from heedful.records import Judgement, read_jsonl
from heedful.stage_names import all_stages, stages_of
from heedful.store import Run, write_jsonl


def run_until(config: Config, folder: Path, until: str, from_stage: str | None = None) -> list[str]:
    """The stages that the manifest knows afterwards."""
    with Run(folder) as run:
        assert Pipeline(config, run, lambda *_: None)(from_stage, until) == {}
        assert {entry["state"] for entry in run.manifest["stages"].values()} == {"done"}
        return list(run.manifest["stages"])


def test_people_rank_between_two_commands(config: Path, whole: Path, tmp_path: Path) -> None:
    folder, loaded = tmp_path / "run", load(config)
    assert run_until(loaded, folder, "sample") == ["sample"]
    sampled = (folder / "sample" / "completions.jsonl").stat().st_mtime_ns
    simulated = read_jsonl(whole / "label" / "judgements.jsonl", Judgement)
    people = [j.model_copy(update={"source": "human", "note": "read aloud"}) for j in simulated]
    write_jsonl(tmp_path / "people.jsonl", people)
    told = load(config, (f"label.judgements={tmp_path / 'people.jsonl'}",))
    assert run_until(told, folder, "consensus") == ["sample", "label", "consensus"]
    assert (folder / "sample" / "completions.jsonl").stat().st_mtime_ns == sampled, "the completions people saw are kept"
    assert read_jsonl(folder / "label" / "judgements.jsonl", Judgement) == people
    pairs = [json.loads(line) for line in (folder / "consensus" / "preferences.jsonl").read_text().splitlines()]
    assert {pair["source"] for pair in pairs} == {"human"}
    assert not (folder / "reward").exists()


def test_until_the_report_is_the_whole_run(config: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    with Run(tmp_path / "run") as run:
        found = Pipeline(load(config), run, lambda *_: None)(until="report")
    assert found == json.loads((whole / "summary.json").read_text())


def test_from_and_until_together_run_what_lies_between(config: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    assert run_until(load(config), tmp_path / "run", "consensus", "label") == ["sample", "label", "consensus"]
    assert not (tmp_path / "run" / "reward").exists(), "what came of the older judgements is gone"


@pytest.mark.parametrize(
    ("from_stage", "until", "message"),
    [
        (None, "smaple", "--until smaple: no such stage; the stages are sample, label"),
        ("smaple", None, "--from smaple: no such stage"),
        ("ppo", "sample", "--from ppo --until sample: 'sample' comes first"),
    ],
)
def test_stages_that_cannot_be(from_stage: str | None, until: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stages_of(Config(), from_stage, until)


def test_ready_made_pairs_leave_out_the_first_stages() -> None:
    config = parse({"reward": {"preferences": ["pairs.jsonl"]}}, "test")
    assert stages_of(config) == all_stages(config)[3:]
    assert stages_of(config, until="ppo") == ["reward", "ppo"]
    with pytest.raises(ConfigError, match=r"--until sample: ready-made pairs or labels take its place"):
        stages_of(config, until="sample")
