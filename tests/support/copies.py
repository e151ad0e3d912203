"""Processes of their own that need not read torch and transformers anew.

That takes seven seconds of a core, some hundred times in a suite. One process reads them once, and each of these is a copy of
it, by the standard library's fork server: with its own memory, folder, environment and ends, and free to be killed.

Variables that libraries look at when they are read have no effect in a copy. The other workers of a team are started from
nothing, by the command line that the copy stands for.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

READ_ONCE = ["copies_preloaded"]


def run(
    work: Callable[..., None],
    *arguments: object,
    command: list[str],
    stdin: str = "",
    timeout: float = 300,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """`work(*arguments)` in a process of its own. command: what a user would type for it, as sys.argv and in messages.

    work: a function of a module's own. Raises TimeoutExpired, and then the process is gone.
    """
    with tempfile.TemporaryDirectory() as name:
        ends = [Path(name) / end for end in ("stdin", "stdout", "stderr")]
        ends[0].write_text(stdin)
        place = str(cwd or Path.cwd())
        process = _server().Process(target=_begin, args=(work, arguments, command, ends, place, dict(os.environ)))
        process.start()
        process.join(timeout)
        late = process.exitcode is None
        if late:
            process.kill()
            process.join()
        said = [end.read_text() if end.exists() else "" for end in ends[1:]]
        if late:
            raise subprocess.TimeoutExpired(command, timeout, *said)
        return subprocess.CompletedProcess(command, process.exitcode, *said)


def start(work: Callable[..., None], *, command: list[str], folder: Path) -> multiprocessing.process.BaseProcess:
    """`work()` in a process of its own, which goes on, in this folder; `stdout` and `stderr` there are what it says."""
    ends = [folder / end for end in ("stdin", "stdout", "stderr")]
    ends[0].write_text("")
    process = _server().Process(target=_begin, args=(work, (), command, ends, str(folder), dict(os.environ)))
    process.start()
    return process


@cache
def _server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(READ_ONCE)
    before = dict(os.environ)
    # It looks for what is to be read here, and is not told otherwise.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [before.get("PYTHONPATH")])])
    multiprocessing.forkserver.ensure_running()
    os.environ.clear()
    os.environ.update(before)
    return context


def _begin(
    work: Callable[..., None],
    arguments: tuple[object, ...],
    command: list[str],
    ends: list[Path],
    cwd: str,
    environment: dict[str, str],
) -> None:
    for number, end in enumerate(ends):
        opened = os.open(end, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww"))
    # A suite that was started in the background ignores Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    sys.orig_argv = [sys.executable, "-m", "heedful.cli.app", *command[1:]]  # with which a team starts its other workers
    try:
        work(*arguments)
    finally:
        atexit._run_exitfuncs()  # the standard library leaves a copy without them
