"""How runs came out, and in which settings they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from heedful.config import Config
from heedful.report.table import cells, label_of
from heedful.web.runs.live import stage_names


class Outcome(NamedTuple):
    """Of one quantity. difference: with its interval, where there is one."""

    label: str
    before: str
    after: str
    difference: str
    verdict: str


def outcomes(run: Path) -> dict[str, Outcome]:
    """What the evaluation found, by quantity; nothing where it has not run, or its file is damaged."""
    try:
        rows = json.loads((run / "evaluate" / "compare.json").read_text(encoding="utf-8"))["compare"]
        return {name: Outcome(label_of(name, row), *cells(name, row)) for name, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def side_by_side(runs: Sequence[Path]) -> list[tuple[str, list[Outcome | None]]]:
    """A row a quantity that any of the runs has measured, a cell a run, None where it has not."""
    found = [outcomes(run) for run in runs]
    names = list(dict.fromkeys(name for rows in found for name in rows))
    return [(next(rows[name].label for rows in found if name in rows), [rows.get(name) for rows in found]) for name in names]


def settings_text(run: Path) -> str:
    """heedful.toml as it stands in the run; empty without one."""
    try:
        return (run / "heedful.toml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def trained_stage(run: Path) -> str:
    """The stage whose curves are compared: the last one that trained."""
    return (stage_names(run) or [""])[-1]


def differing(configs: Sequence[Config | None]) -> list[tuple[str, list[str]]]:
    """Keys of heedful.toml that are not the same in all runs, with each run's value; "?" where it cannot be read."""
    flat = [_flat("", config.model_dump(mode="json")) if config else None for config in configs]
    names = list(dict.fromkeys(name for values in flat if values is not None for name in values))
    rows = [(name, ["?" if values is None else values.get(name, "") for values in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _flat(prefix: str, section: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            found |= _flat(f"{prefix}{name}.", value)
        else:
            found[prefix + name] = json.dumps(value, ensure_ascii=False)
    return found
