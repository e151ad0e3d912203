"""Starting a team, seeing that it goes on, and starting it anew when a member is lost."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from heedful.config import ScaleSection
from heedful.errors import HeedfulError
from heedful.scale.members import Member, read_places
from heedful.scale.runners import Runner

LOST = 75  # exit code of a member whose partner is gone: nothing is wrong but that
GRACE_S = 5.0  # in which others come to the same end as the first that ended
LEAVE_S = 30.0  # after member 0 is done
MOST_RESTARTS = 3  # without a new checkpoint or finished piece of work between them
POLL_S = 0.1


def supervise(
    runner: Runner,
    section: ScaleSection,
    folder: Path,
    *,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> int:
    """Runs the team to its end, and returns the exit code of the command.

    A member that was killed, or that the others waited for in vain, ends the whole team; it starts anew and goes on from the
    last checkpoint. Raises HeedfulError when that happens again and again without a step forward.
    """
    restarts, came_to = 0, _reached(folder)
    attempt = 0
    with tempfile.TemporaryDirectory(prefix="heedful-team-", ignore_cleanup_errors=True) as name:
        own = Path(name)
        while True:
            places = own / f"places-{attempt}"
            places.mkdir()
            runner.start([_member(section, rank, attempt, places, own) for rank in range(section.num_workers)])
            try:
                codes = _watch(runner)
            except KeyboardInterrupt:
                _leave(runner)  # Ctrl-C has reached the members too
                raise
            finally:
                runner.stop()
            code = _verdict(codes)
            if code is not None:
                if code not in (0, 130) and codes[0] in (0, None, LOST):
                    _tell(folder, codes, say)
                return code
            where = _where(codes, read_places(places))
            now = _reached(folder)
            restarts, came_to = (1, now) if now > came_to else (restarts + 1, came_to)
            if restarts > MOST_RESTARTS:
                raise HeedfulError(
                    f"{where}. That was the {restarts}th time without a step forward. Their words are in {folder / 'workers'}; "
                    "mend what ends them (memory, most often: fewer workers need less), then run the same command again"
                )
            say(f"{where}; all workers start anew and go on from the last checkpoint")
            attempt += 1
            for rank in range(1, section.num_workers):
                shutil.rmtree(own / f"worker-{rank}", ignore_errors=True)


def _member(section: ScaleSection, rank: int, attempt: int, places: Path, own: Path) -> Member:
    return Member(
        rank,
        section.num_workers,
        section.num_trainers,
        "",
        section.deadline_s,
        attempt,
        places=str(places),
        scratch=str(own / f"worker-{rank}"),
        fsdp=section.fsdp,
    )


def _watch(runner: Runner) -> list[int | None]:
    """Exit codes when the team has ended, or soon after the first member has ended before its time."""
    while True:
        codes = runner.exits()
        if all(code is not None for code in codes):
            return codes
        if codes[0] == 0:
            return _within(runner, LEAVE_S)
        if any(code not in (None, 0) for code in codes):
            return _within(runner, GRACE_S)
        time.sleep(POLL_S)


def _within(runner: Runner, seconds: float) -> list[int | None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end and None in runner.exits():
        time.sleep(POLL_S)
    return runner.exits()


def _leave(runner: Runner) -> None:
    with suppress(KeyboardInterrupt):
        _within(runner, GRACE_S)


def _verdict(codes: Sequence[int | None]) -> int | None:
    """The exit code of the whole; None when members were lost and the rest is well."""
    if codes[0] == 0:
        return 0
    own = [code for code in codes if code is not None and code > 0 and code != LOST]
    return own[0] if own else None


def _where(codes: Sequence[int | None], places: dict[int, str]) -> str:
    """Which member was lost, and where each was last."""
    told = []
    for rank, code in enumerate(codes):
        if code is None:
            how = "did not come to the others in time"
        elif code < 0:
            how = f"was ended by {_signal(-code)}"
        else:
            continue
        told.append(f"worker {rank} {how}, last heard of at {places.get(rank, 'its start')!r}")
    rest = [f"worker {rank} at {said!r}" for rank, said in places.items() if codes[rank] == LOST]
    return "; ".join(told or ["a worker waited for the others in vain"]) + (f" (and {', '.join(rest)})" if rest else "")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tell(folder: Path, codes: Sequence[int | None], say: Callable[[str], None]) -> None:
    """The last words of the member that failed, where it was not the first, which speaks for itself."""
    rank = next(rank for rank, code in enumerate(codes) if code is not None and code > 0 and code != LOST)
    log = folder / "workers" / f"worker-{rank}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "error: nothing")
    say(f"{said.rstrip()} (worker {rank}; all of its words are in {log})")


def _reached(folder: Path) -> float:
    """When the run last came a step forward: the time of its newest checkpoint or piece of work."""
    wanted = ("*checkpoint.pt", "*.partial", "*completions*.jsonl", "reference.jsonl", "result.json")
    newest = 0.0
    for pattern in wanted:
        for file in folder.rglob(pattern):
            with suppress(OSError):
                newest = max(newest, file.stat().st_mtime)
    return newest
