"""Whoever makes no step for a minute is ended, and the test says where each worker was: no test hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from heedful.scale.members import read_places

LIMIT_S = 60.0


def wait(alive: Callable[[], bool], kill: Callable[[], None], temporary: Path, *others: Path, limit_s: float = LIMIT_S) -> None:
    """Until the command has ended. temporary: its TMPDIR, where its workers leave word; others: files that grow as it goes on.

    Fails the test, the command being killed, after limit_s in which no worker left word and no file grew.
    """
    seen, since = "", time.monotonic()
    while alive():
        time.sleep(0.1)
        signs = _signs(temporary, others)
        if signs != seen:
            seen, since = signs, time.monotonic()
        elif time.monotonic() - since > limit_s:
            places = sorted(temporary.glob("heedful-team-*/places-*"), key=lambda folder: folder.stat().st_mtime)
            said = read_places(places[-1]) if places else {}
            kill()
            where = "; ".join(f"worker {rank} at {place}" for rank, place in said.items()) or "before any worker began"
            pytest.fail(f"stuck: no step for {limit_s:g} s, {where}")


def _signs(temporary: Path, others: Sequence[Path]) -> str:
    """What changes when somebody makes a step."""
    try:
        words = [file.read_text(encoding="utf-8") for file in sorted(temporary.glob("heedful-team-*/places-*/*"))]
    except OSError:  # a team has just ended
        words = [str(time.monotonic())]
    return repr(words + [file.stat().st_size if file.exists() else 0 for file in others])
