"""model.recompute and model.compile change how a result comes, not the result: what is done stays done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from heedful.config import Config, load
from heedful.pipeline import Pipeline
from heedful.stages import ilql, offline
from heedful.store import Run

QUICKER = ("model.recompute=true", "model.compile=off")
OTHER = ("model.dtype=bfloat16",)


def stages_done_again(config: Config, folder: Path) -> list[str]:
    notes: dict[str, str] = {}
    with Run(folder) as run:
        Pipeline(config, run, lambda stage, done, total, note: notes.update({stage: note}))(until="label")
    return [stage for stage, note in notes.items() if note != "already done"]


def test_a_run_keeps_its_stages(config: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    assert stages_done_again(load(config, QUICKER), tmp_path / "run") == []
    assert stages_done_again(load(config, OTHER), tmp_path / "run") == ["sample", "label"]


@pytest.mark.parametrize(("overrides", "times"), [(QUICKER, 1), (OTHER, 2)])
def test_learning_from_files_keeps_its_stage(config: Path, tmp_path: Path, overrides: tuple[str, ...], times: int) -> None:
    worked = []

    def work() -> dict[str, Any]:
        worked.append(1)
        (tmp_path / "run" / "dpo").mkdir(exist_ok=True)
        return {}

    for some in ((), overrides):
        changed = load(config, some)
        offline._stage(changed, "dpo", changed.dpo, tmp_path / "run", [], work, lambda *_: None)
    assert len(worked) == times


@pytest.mark.parametrize(("overrides", "times"), [(QUICKER, 1), (OTHER, 2)])
def test_ilql_keeps_its_stage(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], times: int
) -> None:
    models = []
    monkeypatch.setattr(ilql, "_train", lambda model, *_: models.append(model) or {})
    for some in ((), overrides):
        ilql.align_ilql(load(config, some), tmp_path / "run", preferences=[])
    assert len(models) == times


def test_the_settings_reach_the_model(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setattr("heedful.engine.device.has_compiler", lambda: True)
    wanted = load(config, ("model.recompute=true", "model.compile=on"))
    with Run(tmp_path / "run") as run:
        models = [Pipeline(wanted, run, lambda *_: None).model, offline._base(wanted)]
    assert [(model.recompute, model.compiled) for model in models] == [(True, True)] * 2
    models = [offline._base(load(config))]
    assert [(model.recompute, model.compiled) for model in models] == [(False, False)]


def test_a_summary_has_the_predicted_peak(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    # A tiny model: the process is nearly all there is.
    assert summary["predicted_memory_mb"] == pytest.approx(summary["peak_memory_mb"], rel=0.25)
