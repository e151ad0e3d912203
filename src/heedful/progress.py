"""How far a job has come, left in its folder for whoever looks on, and how long the rest will take."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from heedful.errors import StoreError
from heedful.store import write_json

# stage, done, total, note
Progress = Callable[[str, int, int, str], None]

FILE = ".progress.json"  # hidden: no result of the run, and gone on with or not it is the same run
EVERY_S = 2.0


class Pace:
    """Times each stage from when it was first heard of: what an earlier process had done already counts for nothing."""

    def __init__(self) -> None:
        self.begun: dict[str, tuple[float, int]] = {}

    def spent_s(self, stage: str, done: int) -> float:
        """Seconds since the stage was first heard of."""
        now = time.monotonic()
        return now - self.begun.setdefault(stage, (now, done))[0]

    def eta_s(self, stage: str, done: int, total: int) -> float | None:
        """Seconds that the rest takes if it goes on like this; None where that cannot be told."""
        spent_s = self.spent_s(stage, done)
        did = done - self.begun[stage][1]
        return spent_s / did * (total - done) if did > 0 and done <= total else None


def telling(run: Path, progress: Progress) -> Progress:
    """`progress`, which also leaves in the run directory how far it has come: at most every two seconds, and at each end."""
    pace, written = Pace(), 0.0
    last = ""

    def tell(stage: str, done: int, total: int, note: str) -> None:
        nonlocal written, last
        eta_s = pace.eta_s(stage, done, total)
        now = time.monotonic()
        if stage != last or done >= total or now - written >= EVERY_S:
            written, last = now, stage
            told = {"stage": stage, "done": done, "total": total, "note": note, "time": round(time.time(), 3), "eta_s": eta_s}
            with suppress(StoreError):  # a full disk ends the run where a result is lost, and this is none
                write_json(run / FILE, told)
        progress(stage, done, total, note)

    return tell


def read_progress(run: Path) -> dict[str, Any] | None:
    """stage, done, total, note, time, eta_s; None where nothing was told."""
    try:
        found = json.loads((run / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    counts = ("done", "total")
    whole = isinstance(found, dict) and {"stage", *counts, "note", "time", "eta_s"} <= set(found)
    return found if whole and all(type(found[name]) is int for name in counts) and isinstance(found["time"], float) else None
