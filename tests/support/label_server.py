"""A real labelling server in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import httpx2
from labelled_project import PASSWORD


class Server:
    """`heedful label serve` on a free port, or with runs `heedful serve`. link: the first admin's invitation, None where there
    is an admin.
    """

    def __init__(self, home: Path, log: Path, *more: str, database: str | None = None, runs: Path | None = None) -> None:
        self.home, self.database = home, database
        words = command("serve", home, "--port", "0", *more, database=database)
        if runs is not None:
            words.remove("label")
            words += ["--runs", str(runs)]
        with log.open("w") as stream:
            self.process = subprocess.Popen(words, stderr=stream)
        self.url, self.link = self._told(log)

    def _told(self, log: Path) -> tuple[str, str | None]:
        for _ in range(600):
            found = re.search(
                r"(?:^(http\S+/join/\S+)\n)?labelling(?: pages|, runs and chat) on (\S+?),? ", log.read_text(), re.MULTILINE
            )
            if found:
                return found[2], found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"the server did not come up:\n{log.read_text()}")

    def run(self, *arguments: str) -> str:
        """What another `heedful label` command of the same installation prints."""
        verb, *rest = arguments
        words = command(verb, self.home, *rest, database=self.database)
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()


def command(verb: str, home: Path, *rest: str, database: str | None = None) -> list[str]:
    """verb: one word, or two as in "users invite"."""
    given = ["--database", database] if database else []
    return [sys.executable, "-m", "heedful.cli.app", "label", *verb.split(), "--home", str(home), *given, *rest]


def csrf(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found, page
    return found[1]


def join(link: str, name: str) -> httpx2.Client:
    """A browser without a window, in which somebody has joined by an invitation."""
    client = httpx2.Client(timeout=60)
    form = {"username": name, "password1": PASSWORD, "password2": PASSWORD}
    assert client.post(link, data=form | {"csrfmiddlewaretoken": csrf(client.get(link).text)}).status_code == 302
    return client
