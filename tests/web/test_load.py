"""Fifty labelers at once on both databases, and a server that is killed: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import Postgres, programs

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    if request.param == "SQLite":
        yield None
        return
    if programs() is None and os.environ.get("HEEDFUL_CI") != "1":
        pytest.skip("no PostgreSQL on this machine; install the package postgresql")
    found = Postgres(tmp_path / "postgres")
    yield found.url
    found.stop()


# In a process of its own: Django is configured once a process, and here for another database than that of the other tests.
SCRIPT = """
import os, signal, sys, threading, time
sys.path.insert(0, "tests/support")
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
from pathlib import Path
from label_server import Server
from labelling_load import Load, prepare
from heedful.web import home
folder, database, kill = Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3] == "kill"
home.configure(folder / "labels", database=database)
sessions = prepare(60, 50)
server, load = Server(folder / "labels", folder / "log", database=database), Load()
if kill:
    def strike():
        while len(load.acknowledged) < 40:
            time.sleep(0.01)
        load.ended.set()
        server.process.send_signal(signal.SIGKILL)
    threading.Thread(target=strike).start()
try:
    load.run(server.url, sessions, 120, (0.0, 0.5))
    if kill:
        server.process.wait()
        server = Server(folder / "labels", folder / "log2", database=database)
finally:
    server.stop()
print("judged", len(load.acknowledged))
print("wrong", load.wrong + load.lost_doubled_or_too_many())
print("locked", "locked" in (folder / "log").read_text())
"""


def run(tmp_path: Path, database: str | None, *, kill: bool) -> dict[str, str]:
    words = [sys.executable, "-c", SCRIPT, str(tmp_path), database or "", "kill" if kill else ""]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_fifty_at_once(tmp_path: Path, database: str | None) -> None:
    found = run(tmp_path, database, kill=False)
    assert found == {"judged": "180", "wrong": "[]", "locked": "False"}, "60 sets, three labelers each, to the last place"


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, database: str | None) -> None:
    found = run(tmp_path, database, kill=True)
    assert 40 <= int(found["judged"]) < 180, "killed in the middle"
    assert found["wrong"] == "[]"
