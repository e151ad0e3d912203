"""Where a run stands: its stages, how far the one at work has come, and when it will be done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heedful.config import Config, load
from heedful.errors import ConfigError
from heedful.progress import read_progress
from heedful.report.numbers import finite
from heedful.stage_names import all_stages
from heedful.store import is_held
from heedful.waiting import read_waiting, said


@dataclass(frozen=True)
class Standing:
    """state: running; waiting, for people who label; interrupted in a stage; unfinished, where stages of the flow are still to
    come; done; or broken where manifest.json cannot be read. stage: the one at work, or the last.

    done, total, note, eta_s: of that stage, as the run itself tells; None where it does not. stages: name, state, seconds.
    waiting: what a run that waits told of it last, see heedful.waiting.
    """

    state: str
    stage: str = ""
    done: int | None = None
    total: int | None = None
    note: str = ""
    eta_s: float | None = None
    stages: tuple[dict[str, Any], ...] = ()
    waiting: dict[str, Any] | None = None


def manifest_of(run: Path) -> dict[str, Any] | None:
    """The manifest; None where it cannot be read."""
    try:
        found = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    stages = found.get("stages") if isinstance(found, dict) else None
    whole = isinstance(stages, dict) and all(isinstance(stage, dict) for stage in stages.values())
    return found if whole else None


def config_of(run: Path) -> Config | None:
    """The run's settings; None where there are none, or those of another version of heedful."""
    try:
        return load(run / "heedful.toml")
    except (ConfigError, RecursionError):
        return None


def standing(run: Path, config: Config | None) -> Standing:
    """From the manifest, the lock, and what the run last told of itself."""
    manifest = manifest_of(run)
    if manifest is None:
        return Standing("broken")
    entries = manifest["stages"]
    known = all_stages(config) if config else []
    order = [name for name in known if name in entries] + [name for name in entries if name not in known]
    stages = tuple(
        {"name": name, "state": str(entries[name].get("state", "")), "seconds": _seconds(entries[name])} for name in order
    )
    unfinished = [stage["name"] for stage in stages if stage["state"] != "done"]
    held = is_held(run)
    whole_flow = bool({"sample", "label", "consensus", "reward"} & set(entries)) and bool(known)
    to_come = whole_flow and "report" not in entries
    state = "running" if held else "interrupted" if unfinished else "unfinished" if to_come or not entries else "done"
    stage = unfinished[0] if unfinished else order[-1] if order else ""
    waiting = read_waiting(run) if unfinished else None
    if waiting is not None:
        done, total = waiting["done"], waiting["total"]
        stages = tuple(one | {"state": "waiting"} if one["name"] == stage else one for one in stages)
        note = said(done, total) + ("" if held else "; the same heedful run goes on when they have come")
        return Standing("waiting", stage, done, total, note, stages=stages, waiting=waiting)
    told = read_progress(run)
    if told is None or state == "done" or not told["total"] or _is_older(told, run):
        return Standing(state, stage, stages=stages)
    eta_s = told["eta_s"] if held and finite(told["eta_s"]) else None
    return Standing(state, str(told["stage"]), told["done"], told["total"], str(told["note"]), eta_s, stages)


def _seconds(entry: dict[str, Any]) -> float | None:
    return seconds if finite(seconds := entry.get("seconds")) else None


def _is_older(told: dict[str, Any], run: Path) -> bool:
    """Whether a process before this one told it: the manifest is written when a stage begins or goes on."""
    try:
        return bool(told["time"] < (run / "manifest.json").stat().st_mtime - 1)
    except OSError:
        return True
