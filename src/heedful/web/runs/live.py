"""What a run's page shows now, as one JSON object: asked for every few seconds while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from heedful.config import Config
from heedful.report.numbers import finite, sound
from heedful.web.runs.quantities import EVALUATED, SPEED
from heedful.web.runs.series import Series, reading, step_seconds, thinned, tokens_per_second
from heedful.web.runs.standing import Standing, config_of, standing

NUM_SAID = 3  # prompts whose latest answers are shown
NUM_SIGNS = 40  # evaluations of which signs are listed, the last ones


def stage_names(run: Path) -> list[str]:
    """Stages with metrics, in the order in which they began."""
    with reading(run) as series:
        return list(series.stages)


def columns_of(run: Path, stage: str) -> set[str]:
    config = config_of(run)
    with reading(run) as series:
        return _names(series, stage, _episodes(config, stage))


def look(
    run: Path,
    stage: str,
    *,
    seen: str = "",
    curves: Collection[str] | None = None,
    refreshed: Callable[[Standing], Standing] = lambda now: now,
) -> dict[str, Any]:
    """standing, stages, columns, version, hacking, said, problems; and curves, unless `seen` is the version of which the page
    has them.

    curves: the names of those that are wanted; None for all. refreshed: knows more of where the run stands than its files.
    """
    config = config_of(run)
    episodes = _episodes(config, stage)
    problems: list[str] = []
    found: dict[str, Any] = {"standing": asdict(refreshed(standing(run, config)))}
    with reading(run) as series:
        own = series.stage(stage)
        found |= {"version": series.version, "stages": list(series.stages), "columns": sorted(_names(series, stage, episodes))}
        found["step_s"] = step_seconds(own)
        if series.version != seen:
            found["curves"] = _curves(series, stage, episodes, curves)
        if series.problem:
            problems.append(series.problem)
        if series.broken:
            problems.append(f"metrics.jsonl, line {series.broken}: no row of metrics; what else stands in the file is shown.")
        if own.num_again:
            problems.append(
                "metrics.jsonl holds steps twice, as when two runs share a folder; of each the later line is shown."
            )
        broken = {name: column.num_broken for name, column in own.columns.items() if column.num_broken}
        evaluated = bool(EVALUATED & set(own.columns))
    problems += [f"{name}: {count} values are no finite numbers and are not drawn." for name, count in broken.items()]
    if found["standing"]["state"] == "broken":
        problems.append("manifest.json cannot be read: where this run stands cannot be told.")
    found["hacking"] = _hacking(run, stage, evaluated, problems)
    found["said"] = _said(run, stage, problems)
    found["problems"] = problems
    target = getattr(getattr(config, stage, None), "kl_target", 0.0) if config else 0.0
    found["kl_target"] = target or None
    return found


def _episodes(config: Config | None, stage: str) -> int:
    return int(getattr(getattr(config, stage, None), "episodes", 0)) if config else 0


def _names(series: Series, stage: str, episodes: int) -> set[str]:
    found = set(series.stage(stage).columns)
    return found | ({SPEED} if episodes and "length" in found else set())


def _curves(series: Series, stage: str, episodes: int, wanted: Collection[str] | None) -> dict[str, Any]:
    own = series.stage(stage)
    columns = dict(own.columns)
    if episodes and "length" in columns and (wanted is None or SPEED in wanted):
        columns[SPEED] = tokens_per_second(own, episodes)
    return {name: thinned(column) for name, column in columns.items() if wanted is None or name in wanted}


def _hacking(run: Path, stage: str, evaluated: bool, problems: list[str]) -> dict[str, Any]:
    """level: of the last evaluation; "unknown" where its signs cannot be read, "not evaluated yet" before the first one.

    history: signs after each evaluation, the last NUM_SIGNS of them.
    """
    rows, whole = _log(run / "hacking.jsonl", stage, problems)
    history = [{"steps": row["steps"], "signs": _signs(row.get("signs"))} for row in rows][-NUM_SIGNS:]
    last = [sign["level"] for sign in history[-1]["signs"]] if history else []
    level = "stop" if "stop" in last else "warn" if last else "ok"
    if not whole:
        level = "unknown"
    elif not (evaluated or history):
        level = "not evaluated yet"
    return {"level": level, "history": history}


def _signs(signs: object) -> list[dict[str, str]]:
    found = [sign for sign in signs if isinstance(sign, dict)] if isinstance(signs, list) else []
    return [{name: sound(str(sign.get(name, ""))) for name in ("name", "level", "said")} for sign in found]


def _said(run: Path, stage: str, problems: list[str]) -> list[dict[str, Any]]:
    """The latest answers to the prompts that are heard, at most NUM_SAID."""
    rows, _ = _log(run / "samples.jsonl", stage, problems)
    latest = [row for row in rows if row["steps"] == rows[-1]["steps"]][:NUM_SAID]
    return [
        {
            "steps": row["steps"],
            "prompt": sound(str(row.get("prompt"))),
            "text": sound(str(row.get("text"))),
            "reward": reward if finite(reward := row.get("reward")) else None,
        }
        for row in latest
    ]


def _log(path: Path, stage: str, problems: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """The stage's rows, and whether all could be read; a last line that is not whole yet is no fault."""
    try:
        told = path.stat()
    except OSError:
        return [], True
    rows, broken = _rows(path, told.st_mtime_ns, told.st_size)
    if broken:
        problems.append(f"{path.name}, line {broken}: not a row of this log; what else stands in it is shown.")
    return [row for row in rows if row.get("stage") == stage], not broken


@lru_cache(maxsize=16)
def _rows(path: Path, mtime_ns: int, size: int) -> tuple[list[dict[str, Any]], int]:
    """Rows of a log, and the first line that is none; by time and size, so that it is read anew when it has grown."""
    rows, broken = [], 0
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line else None
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and type(row.get("steps")) is int:
            rows.append(row)
        elif line and number < len(lines):
            broken = broken or number
    return rows, broken
