"""Where a run stands: its stages, how far the one at work has come, and when it will be done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heedful.config import Config, load
from heedful.errors import ConfigError
from heedful.progress import read_progress
from heedful.stages import all_stages
from heedful.store import is_held


@dataclass(frozen=True)
class Standing:
    """state: running, done, interrupted, or broken where manifest.json cannot be read. stage: the one at work, or the last.

    done, total, note, eta_s: of that stage, as the run itself tells; None where it does not. stages: name, state, seconds.
    """

    state: str
    stage: str = ""
    done: int | None = None
    total: int | None = None
    note: str = ""
    eta_s: float | None = None
    stages: tuple[dict[str, Any], ...] = ()


def manifest_of(run: Path) -> dict[str, Any] | None:
    """The manifest; None where it cannot be read."""
    try:
        found = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    stages = found.get("stages") if isinstance(found, dict) else None
    whole = isinstance(stages, dict) and all(isinstance(stage, dict) for stage in stages.values())
    return found if whole else None


def config_of(run: Path) -> Config | None:
    """The run's settings; None where there are none, or those of another version of heedful."""
    try:
        return load(run / "heedful.toml")
    except ConfigError:
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
        {"name": name, "state": str(entries[name].get("state", "")), "seconds": entries[name].get("seconds")} for name in order
    )
    unfinished = [stage["name"] for stage in stages if stage["state"] != "done"]
    held = is_held(run)
    state = "running" if held else "interrupted" if unfinished else "done"
    stage = unfinished[0] if unfinished else order[-1] if order else ""
    told = read_progress(run)
    if told is None or told["total"] == 0 or (state == "done"):
        return Standing(state, stage, stages=stages)
    eta_s = told["eta_s"] if held else None
    return Standing(state, told["stage"], told["done"], told["total"], str(told["note"]), eta_s, stages)
