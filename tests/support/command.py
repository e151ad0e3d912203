"""The command line as a user starts it: HEEDFUL from nothing, `heedful` in a process that has read its libraries already."""

from __future__ import annotations

import multiprocessing.process
import subprocess
import sys
from pathlib import Path

import copies

HEEDFUL = [sys.executable, "-m", "heedful.cli.app"]


def heedful(
    *arguments: str | Path, stdin: str = "", timeout: float = 300, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = ["heedful", *map(str, arguments)]
    return copies.run(_main, command=command, stdin=stdin, timeout=timeout, cwd=cwd)


def start(*arguments: str | Path, folder: Path) -> multiprocessing.process.BaseProcess:
    """A command that goes on, in this folder, where `stdout` and `stderr` are what it says."""
    return copies.start(_main, command=["heedful", *map(str, arguments)], folder=folder)


def _main() -> None:
    from heedful.cli.app import main

    main()


def assert_one_paragraph(failed: subprocess.CompletedProcess[str], *said: str) -> None:
    """Exit 1, nothing on stdout, and one paragraph on stderr that says these words."""
    assert failed.returncode == 1, failed.stderr
    assert failed.stdout == ""
    *_, last = failed.stderr.strip().splitlines()
    assert last.startswith("error: "), failed.stderr
    for words in said:
        assert words in last
    assert "Traceback" not in failed.stderr
