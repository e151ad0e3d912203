"""What a run's page shows now, as one JSON object: asked for every few seconds while the run goes on."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from heedful.config import Config
from heedful.errors import StoreError
from heedful.store import read_rows
from heedful.web.runs.quantities import SPEED
from heedful.web.runs.series import Series, reading, step_seconds, thinned, tokens_per_second
from heedful.web.runs.standing import config_of, standing

NUM_SAID = 3  # prompts whose latest answers are shown
NUM_SIGNS = 40  # evaluations of which signs are listed, the last ones


def stage_names(run: Path) -> list[str]:
    """Stages with metrics, in the order in which they began."""
    with reading(run) as series:
        return list(series.stages)


def columns_of(run: Path, stage: str) -> set[str]:
    config = config_of(run)
    with reading(run) as series:
        found = set(series.stage(stage).columns)
    return found | ({SPEED} if "length" in found and _episodes(config, stage) else set())


def look(run: Path, stage: str, *, seen: str = "", curves: Collection[str] | None = None) -> dict[str, Any]:
    """standing, stages, version, signs, said, problems; and curves, unless `seen` is the version of which the page has them.

    curves: the names of those that are wanted; None for all.
    """
    config = config_of(run)
    problems: list[str] = []
    found: dict[str, Any] = {"standing": asdict(standing(run, config))}
    with reading(run) as series:
        found["version"] = series.version
        found["stages"] = list(series.stages)
        found["step_s"] = step_seconds(series.stage(stage))
        if series.version != seen:
            found["curves"] = _curves(series, stage, _episodes(config, stage), curves)
        if series.broken:
            problems.append(f"metrics.jsonl, line {series.broken}: not a JSON object; what else stands in the file is shown.")
        broken = {name: column.num_broken for name, column in series.stage(stage).columns.items() if column.num_broken}
    problems += [f"{name}: {count} values are no finite numbers and are not drawn." for name, count in broken.items()]
    if found["standing"]["state"] == "broken":
        problems.append("manifest.json cannot be read: where this run stands cannot be told.")
    found["signs"] = _signs(run, stage, problems)
    found["said"] = _said(run, stage, problems)
    found["problems"] = problems
    target = getattr(getattr(config, stage, None), "kl_target", 0.0) if config else 0.0
    found["kl_target"] = target or None
    return found


def _episodes(config: Config | None, stage: str) -> int:
    return int(getattr(getattr(config, stage, None), "episodes", 0)) if config else 0


def _curves(series: Series, stage: str, episodes: int, wanted: Collection[str] | None) -> dict[str, Any]:
    own = series.stage(stage)
    columns = dict(own.columns)
    if episodes and "length" in columns and (wanted is None or SPEED in wanted):
        columns[SPEED] = tokens_per_second(own, episodes)
    return {name: thinned(column) for name, column in columns.items() if wanted is None or name in wanted}


def _signs(run: Path, stage: str, problems: list[str]) -> list[dict[str, Any]]:
    return [
        {"steps": row["steps"], "signs": row["signs"]}
        for row in _log(run / "hacking.jsonl", stage, problems)
        if isinstance(row.get("signs"), list)
    ][-NUM_SIGNS:]


def _said(run: Path, stage: str, problems: list[str]) -> list[dict[str, Any]]:
    """The latest answers to the prompts that are heard, at most NUM_SAID."""
    rows = _log(run / "samples.jsonl", stage, problems)
    latest = [row for row in rows if row["steps"] == rows[-1]["steps"]][:NUM_SAID]
    return [
        {
            "steps": row["steps"],
            "prompt": str(row.get("prompt")),
            "text": str(row.get("text")),
            "reward": reward if isinstance(reward := row.get("reward"), int | float) and math.isfinite(reward) else None,
        }
        for row in latest
    ]


def _log(path: Path, stage: str, problems: list[str]) -> list[dict[str, Any]]:
    try:
        rows = read_rows(path)
    except (StoreError, UnicodeDecodeError) as error:
        problems.append(f"{path.name}: {str(error).removeprefix(f'{path}:')}")
        return []
    return [row for row in rows if row.get("stage") == stage and isinstance(row.get("steps"), int)]
