"""Whoever makes no step for a minute is ended, and the test says where each worker was: no test hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
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
        places = sorted(temporary.glob("heedful-team-*/places-*"), key=lambda folder: folder.name)
        signs = repr([_text(file) for folder in places for file in sorted(folder.iterdir())] + [_size(one) for one in others])
        if signs != seen:
            seen, since = signs, time.monotonic()
        elif time.monotonic() - since > limit_s:
            said = read_places(places[-1]) if places else {}
            kill()
            where = "; ".join(f"worker {rank} at {place}" for rank, place in said.items()) or "before any worker began"
            pytest.fail(f"stuck: no step for {limit_s:g} s, {where}")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:  # of a team that has ended
        return ""


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
