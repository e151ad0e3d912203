"""What the documented backup brings back, on either database, with labelers at work while it is taken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from label_server import command
from postgres_server import Postgres, programs

ROOT = Path(__file__).parents[2]
# In a process of its own, as Django is configured once a process. Prints what was acknowledged before the copy began and is
# not in the copy, then how many judgements the copy holds.
SCRIPT = """
import os, subprocess, sys, threading, time
sys.path.insert(0, "tests/support")
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
from pathlib import Path
from label_server import Server, command
from labelling_load import Load, prepare
from heedful.web import home
folder = Path(sys.argv[1])
home.configure(folder / "labels")
sessions = prepare(200, 8)
server, load = Server(folder / "labels", folder / "log"), Load()
worker = threading.Thread(target=load.run, args=(server.url, sessions, 120, (0.0, 0.05)))
worker.start()
try:
    while len(load.acknowledged) < 40:
        time.sleep(0.01)
    before = list(load.acknowledged)
    subprocess.run(command("backup", folder / "labels", "--output", str(folder / "copy")), check=True, stdout=sys.stderr)
    during = len(load.acknowledged)
finally:
    load.ended.set()
    worker.join()
    server.stop()
from django.db import connections
connections["default"].close()
connections["default"].settings_dict["NAME"] = str(folder / "copy" / "labels.sqlite3")
from heedful.web.labelling.models import Judgement
held = set(Judgement.objects.values_list("labeler__username", "set"))
print([entry[:2] for entry in before if (f"labeler-{entry[0]}", entry[1]) not in held])
print(len(held) >= len(before), during > len(before) or "nobody worked meanwhile")
"""


def test_a_running_sqlite_is_copied_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "True True"]
    assert (tmp_path / "copy" / "secret-key").read_text() == (tmp_path / "labels" / "secret-key").read_text()
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0
    shutil.rmtree(tmp_path / "labels")
    served = subprocess.run(command("status", tmp_path / "copy", "--json"), capture_output=True, text=True, check=False)
    assert served.returncode == 0, served.stderr
    assert '"project": "Load"' in served.stdout


def test_what_cannot_be_copied_is_said(tmp_path: Path) -> None:
    def told(*words: str, home: str = "none") -> str:
        done = subprocess.run(command("backup", tmp_path / home, *words), capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "give the server's folder" in told("--output", str(tmp_path / "copy"))
    assert not (tmp_path / "none").exists(), "nothing is made in passing"
    subprocess.run(command("status", tmp_path / "labels"), check=True, capture_output=True)
    (tmp_path / "taken").mkdir()
    assert "exists already" in told("--output", str(tmp_path / "taken"), home="labels")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in told("--output", str(tmp_path / "file" / "copy"), home="labels")
    (tmp_path / "labels" / "labels.sqlite3").write_bytes(b"no database at all, but long enough to look like one" * 100)
    assert "cannot be written" in told("--output", str(tmp_path / "copy"), home="labels")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [], "no half copies"


def test_a_postgresql_comes_back_from_its_dump(tmp_path: Path) -> None:
    if programs() is None and os.environ.get("HEEDFUL_CI") != "1":
        pytest.skip("no PostgreSQL on this machine; install the package postgresql")
    database = Postgres(tmp_path / "postgres")
    try:
        home = tmp_path / "labels"
        (tmp_path / "p.jsonl").write_text('{"id": "p", "messages": [{"role": "user", "content": "Why?"}]}\n')
        sampling = '{"temperature": 1.0, "top_p": 1.0, "seed": 0, "max_new_tokens": 8}'
        rest = f'"prompt_id": "p", "model": "m", "finish": "stop", "sampling": {sampling}'
        (tmp_path / "c.jsonl").write_text("".join(f'{{"id": "p/{n}", "text": "So {n}.", {rest}}}\n' for n in range(2)))
        given = ("--prompts", str(tmp_path / "p.jsonl"), "--completions", str(tmp_path / "c.jsonl"))
        make = command("import", home, "--project", "house", *given, database=database.url)
        subprocess.run(make, check=True, capture_output=True)
        dump = tmp_path / "dump.sql"
        database.dump(dump)
        database.restore(dump, "again")
        again = database.url.rpartition("/")[0] + "/again"
        done = subprocess.run(command("status", home, "--json", database=again), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert '"project": "house"' in done.stdout
    finally:
        database.stop()
