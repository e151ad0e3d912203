"""That a run waits for people: what it leaves in its directory while it does, and how that is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "waiting.json"


def said(done: int, total: int) -> str:
    """In words."""
    return f"waiting for labels: {done} of {total} sets"


def read_waiting(run: Path) -> dict[str, Any] | None:
    """done, total, project, server, time; None where the run waits for nobody, or the file is no such thing."""
    try:
        found = json.loads((run / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"done": int, "total": int, "project": str, "server": str, "time": float}
    whole = isinstance(found, dict) and all(type(found.get(name)) is kind for name, kind in kinds.items())
    return found if whole else None
