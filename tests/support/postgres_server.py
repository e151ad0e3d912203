"""A real PostgreSQL of one's own, in a folder, for as long as a test lasts."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path


def programs() -> Path | None:
    """The folder of initdb, pg_ctl and pg_dump, which Debian keeps out of the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


class Postgres:
    """url: of an empty database. Raises AssertionError where PostgreSQL is not installed."""

    def __init__(self, folder: Path) -> None:
        found = programs()
        assert found is not None, "no PostgreSQL on this machine; install the package postgresql"
        self.programs, self.folder = found, folder
        folder.mkdir(parents=True)
        # It refuses to run as root, and its own user has to reach the folder.
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            os.chown(folder, pwd.getpwnam(self.user).pw_uid, -1)
            for parent in folder.parents:
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "heedful", "--no-sync")
        settings = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {folder}"
        self._run("pg_ctl", "-D", str(folder / "data"), "-o", settings, "-l", str(folder / "log"), "-w", "start")
        self.url = f"postgres://heedful@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        words = [str(self.programs / program), *arguments]
        done = subprocess.run(words, user=self.user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 0, f"{program}: {done.stderr.decode()}"

    def dump(self, path: Path) -> None:
        """As docs/operations.md says: pg_dump to a file."""
        dumped = subprocess.run([str(self.programs / "pg_dump"), self.url], capture_output=True, text=True, check=True)
        path.write_text(dumped.stdout)

    def restore(self, path: Path, name: str) -> None:
        """Into a new database of that name."""
        subprocess.run([str(self.programs / "createdb"), "--maintenance-db", self.url, name], check=True)
        target = self.url.rpartition("/")[0] + f"/{name}"
        words = [str(self.programs / "psql"), "--quiet", "--set", "ON_ERROR_STOP=1", "--file", str(path), target]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
