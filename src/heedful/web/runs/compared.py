"""How runs came out, and in which settings they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heedful.config import Config
from heedful.report.numbers import bounds, finite, number, signed
from heedful.web.runs.live import stage_names

PERCENT = {"refusal_harmful", "refusal_safe", "refusal", "incoherent", "finished"}


def _compared(run: Path) -> dict[str, Any]:
    """What the evaluation found; empty where it has not run, or its file is damaged."""
    try:
        found = json.loads((run / "evaluate" / "compare.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    rows = found.get("compare") if isinstance(found, dict) else None
    return {name: row for name, row in rows.items() if isinstance(row, dict)} if isinstance(rows, dict) else {}


def outcome(run: Path) -> dict[str, str]:
    """Before, after and verdict of the reward, for the list; empty before the evaluation."""
    row = _compared(run).get("reward")
    return _cells("reward", row) if row else {}


def table(run: Path) -> list[dict[str, str]]:
    return [_cells(name, row) for name, row in _compared(run).items()]


def side_by_side(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """A row a quantity that any of the runs has measured, a cell a run, None where it has not."""
    found = [_compared(run) for run in runs]
    names = list(dict.fromkeys(name for rows in found for name in rows))
    return [
        {
            "label": next(str(rows[name].get("label", name)) for rows in found if name in rows),
            "cells": [_cells(name, rows[name]) if name in rows else None for rows in found],
        }
        for name in names
    ]


def _cells(name: str, row: dict[str, Any]) -> dict[str, str]:
    scale, digits, unit = (100, 0, "%") if name in PERCENT else (1, 1 if name == "length" else 3, "")
    told = [row.get(side, {}).get("estimate") for side in ("before", "after", "difference")]
    first, second, change = (scale * value if finite(value) else None for value in told)
    return {
        "label": str(row.get("label", name)),
        "before": number(first, digits) + unit,
        "after": number(second, digits) + unit,
        "difference": signed(change, digits),
        "interval": bounds(row.get("difference", {}), digits, scale=scale, sign=True),
        "verdict": str(row.get("verdict", "")),
    }


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
