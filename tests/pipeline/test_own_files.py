"""A run leaves alone what is not its own, and says so before anything is computed or written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from heedful.config import load
from heedful.errors import StoreError
from heedful.pipeline import Pipeline
from heedful.store import Run


def attempt(config: Path, folder: Path, *overrides: str, from_stage: str | None = None) -> None:
    with Run(folder) as run:
        Pipeline(load(config, overrides), run, lambda *_: None)(from_stage)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["label/mine.jsonl", "sample/notes.txt", "report/draft.md"])
def test_a_project_folder_with_files_of_its_own_is_refused(config: Path, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "pj" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for from_stage in (None, "sample"):
        with pytest.raises(StoreError, match=rf"{mine.parent.name}: holds what heedful did not write \({mine.name}\)"):
            attempt(config, tmp_path / "pj", from_stage=from_stage)
    assert {key for key in files(tmp_path / "pj") if not key.startswith(".")} <= {name, "manifest.json"}
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("override", "stage", "from_stage"),
    [
        ("label.judgements={run}/label/judgements.jsonl", "label", None),
        ("label.judgements={run}/label/judgements.jsonl", "label", "label"),
        ("label.judgements={run}/consensus/preferences.jsonl", "consensus", None),
        ('prompts.files=["{run}/sample/prompts.jsonl"]', "sample", None),
        ('reward.preferences=["{run}/consensus/preferences.jsonl"]', "consensus", "consensus"),
        ("reward.model={run}/reward/model", "reward", None),
    ],
)
def test_a_file_that_the_run_would_clear_is_refused(
    config: Path, whole: Path, tmp_path: Path, override: str, stage: str, from_stage: str | None
) -> None:
    run = tmp_path / "r1"
    shutil.copytree(whole, run)
    before = files(run)
    with pytest.raises(StoreError, match=rf": lies in .*r1/{stage}, which stage '{stage}' empties when it starts anew; move"):
        attempt(config, run, override.format(run=run), from_stage=from_stage)
    assert files(run) == before
