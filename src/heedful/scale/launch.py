"""Between a command and its work: the work is done here, or by a team of which each member is this same command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from heedful.config import ScaleSection
from heedful.scale.members import Member, ProcessTeam, die_with, this_member
from heedful.scale.room import require_room
from heedful.scale.runners import ProcessRunner, Runner, this_command
from heedful.scale.supervision import LOST, supervise
from heedful.store import writing
from heedful.team import BrokenPassError, LostWorkerError, working_in

R = TypeVar("R")


def share_work(section: ScaleSection, folder: Path, work: Callable[[Path], R]) -> R:
    """What `work` makes in a run directory.

    Where the settings ask for several workers, this process starts them, each with the command that started itself, looks on,
    and leaves with their exit code. Such a worker comes here too: the first works in `folder` and returns; another works in a
    folder that nobody keeps, and leaves. Raises ConfigError naming what is missing when there is no room for so many.
    """
    member = this_member()
    if member is not None:
        return _as_member(member, folder, work)
    if section.num_workers == 1 and section.runner != "ray":
        return work(folder)
    require_room(section)
    logs = folder / "workers"
    with writing(logs):
        logs.mkdir(parents=True, exist_ok=True)
        for old in logs.glob("worker-*.log"):
            old.unlink()
    raise SystemExit(supervise(_runner(section, logs), section, folder))


def first_start() -> bool:
    """False in a worker of a team that goes on after one was lost: what begins anew has begun anew already."""
    member = this_member()
    return member is None or member.attempt == 0


def _runner(section: ScaleSection, logs: Path) -> Runner:
    if section.runner == "ray":
        from heedful.scale.ray import RayRunner

        return RayRunner(this_command(), logs, section)
    return ProcessRunner(this_command(), logs)


def _as_member(member: Member, folder: Path, work: Callable[[Path], R]) -> R:
    die_with(member.parent)
    try:
        team = ProcessTeam(member)
        with working_in(team):
            found = work(folder if member.rank == 0 else Path(member.scratch))
    except LostWorkerError as error:
        _end(LOST, f"lost: {error}")
    except BrokenPassError as error:  # the others stand in the middle of the pass
        _end(1, f"error: {error}")
    if member.rank:
        _end(0)
    team.close()
    return found


def _end(code: int, said: str = "") -> NoReturn:
    """Leaves at once: what waits in the background for a lost partner is not waited for."""
    if said:
        print(said, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
