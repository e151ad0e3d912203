"""People on a labelling server: sets of completions are put there, and the run waits for what they say.

That it waits is a state of the run: `waiting.json` in its directory says for what, for whoever looks on. Nothing is lost when
the waiting command ends. The project's name is made from what is to be judged, so the same command finds it again.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from heedful.client import LabelServer, ServerError
from heedful.config import RoundSection
from heedful.errors import StoreError
from heedful.exchange import Mode, ProjectDetail
from heedful.records import Completion, Judgement, Prompt, to_line
from heedful.store import write_json
from heedful.waiting import FILE, said

# done, total, note
Told = Callable[[int, int, str], None]
LONGEST_NAME = 60  # of a run within a project's name


class People:
    """Whom a run asks. run: its directory. sleep: for tests."""

    def __init__(self, settings: RoundSection, run: Path, told: Told, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings, self.run, self.told, self.sleep = settings, run, told, sleep

    def judge(
        self, title: str, prompts: Sequence[Prompt], completions: Sequence[Completion], *, criterion: str, mode: Mode = "rank"
    ) -> list[Judgement]:
        """What people say once enough sets are finished; waits for that. title: begins the project's name.

        Raises ServerError where the server refuses, ConfigError without a token.
        """
        with LabelServer(self.settings.server) as server:
            found = self._project(server, title, prompts, completions, criterion, mode)
            self._wait(server, found)
            judgements = list(server.judgements(found.slug))
        (self.run / FILE).unlink(missing_ok=True)
        return judgements

    def _project(
        self,
        server: LabelServer,
        title: str,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        criterion: str,
        mode: Mode,
    ) -> ProjectDetail:
        """The project of these very completions, made where there is none."""
        slug = project_name(title, [criterion, mode, str(self.settings.overlap), *map(to_line, completions)])
        try:
            return server.project(slug)
        except ServerError as error:
            if error.status != 404:
                raise
        asked = {completion.prompt_id for completion in completions}
        shown = [prompt for prompt in prompts if prompt.id in asked]
        # A model may write NUL, which no database stores; what was judged has its id.
        sound = [one.model_copy(update={"text": one.text.replace("\0", "\N{REPLACEMENT CHARACTER}")}) for one in completions]
        return server.create_project(slug, shown, sound, criterion=criterion, mode=mode, overlap=self.settings.overlap)

    def _wait(self, server: LabelServer, project: ProjectDetail) -> None:
        standing = project.standing
        while True:
            wanted = min(self.settings.quota or standing.sets, standing.sets)
            done = min(standing.finished_sets, wanted)
            self._tell(project.slug, done, wanted, "")
            if done >= wanted:
                return
            self.sleep(self.settings.poll_s)
            try:
                standing = server.project(project.slug).standing
            except ServerError as error:
                if error.status is not None and error.status < 500:
                    raise
                # A server that is begun anew, with a proxy that says so, does not end a wait of days.
                self._tell(project.slug, done, wanted, "; the server does not answer, trying again")

    def _tell(self, slug: str, done: int, wanted: int, more: str) -> None:
        about: dict[str, Any] = {"done": done, "total": wanted, "project": slug, "server": self.settings.server}
        with suppress(StoreError):  # a full disk ends the run where a result is lost, and this is none
            write_json(self.run / FILE, about | {"time": round(time.time(), 3)})
        self.told(done, wanted, said(done, wanted) + more)


def project_name(title: str, parts: Sequence[str]) -> str:
    """A name that is its own address: small letters, digits, hyphens, and a hash of what is judged and how."""
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:LONGEST_NAME].strip("-") or "run"
    return f"{plain}-{hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:10]}"
