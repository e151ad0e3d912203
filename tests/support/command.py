"""The command line in a process of its own, as a user starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEEDFUL = [sys.executable, "-m", "heedful.cli.app"]


def heedful(
    *arguments: str | Path, stdin: str = "", timeout: float = 300, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [*HEEDFUL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=timeout, check=False, cwd=cwd)


def assert_one_paragraph(failed: subprocess.CompletedProcess[str], *said: str) -> None:
    """Exit 1, nothing on stdout, and one paragraph on stderr that says these words."""
    assert failed.returncode == 1, failed.stderr
    assert failed.stdout == ""
    *_, last = failed.stderr.strip().splitlines()
    assert last.startswith("error: "), failed.stderr
    for words in said:
        assert words in last
    assert "Traceback" not in failed.stderr
