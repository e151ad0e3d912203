"""Many labelers at once, over HTTP against a real server: what was acknowledged, how long it took, what is there afterwards."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2
from labelled_project import SAMPLING

from heedful.records import Completion, Message, Prompt

PROJECT = "Load"


def material(num_sets: int) -> tuple[list[Prompt], list[Completion]]:
    prompts = [Prompt(id=f"p{i}", messages=(Message(role="user", content=f"Question {i}?"),)) for i in range(num_sets)]
    completions = [
        Completion(
            id=f"p{i}/{n}", prompt_id=f"p{i}", text=f"Answer {n} to {i}. " * 20, model="m", finish="stop", sampling=SAMPLING
        )
        for i in range(num_sets)
        for n in range(4)
    ]
    return prompts, completions


def prepare(num_sets: int, num_labelers: int, *, overlap: int = 3) -> list[str]:
    """A project and the sessions of its labelers, straight into the database; Django is configured."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    from heedful.web.labelling.files import Task, create_project
    from heedful.web.labelling.models import User

    project = create_project(PROJECT, *material(num_sets), Task(overlap=overlap))
    sessions = []
    for i in range(num_labelers):
        user = User.objects.create(username=f"labeler-{i}", password="!")  # no password opens it
        project.members.add(user)
        project.instructions.get().readers.add(user)
        store = SessionStore()
        store[SESSION_KEY], store[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
        store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        store.create()
        sessions.append(str(store.session_key))
    return sessions


@dataclass
class Load:
    """acknowledged: (labeler's number, set, tiers) of each answer that the server took. seconds: of each submit."""

    acknowledged: list[tuple[int, int, list[list[int]]]] = field(default_factory=list)
    submit_s: list[float] = field(default_factory=list)
    page_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def label(self, url: str, session: str, number: int, think_s: tuple[float, float]) -> None:
        """One labeler, until `ended`, or until there is nothing left."""
        chance = random.Random(number)
        client = httpx2.Client(base_url=url, cookies={"sessionid": session}, timeout=60)
        try:
            while not self.ended.is_set():
                began = time.perf_counter()
                page = client.get("/project/load/")
                self.page_s.append(time.perf_counter() - began)
                if page.status_code != 200 or 'class="message error"' in page.text:
                    self.wrong.append(f"page: {page.status_code}")
                    return
                chosen = re.search(r'name="set" value="(\d+)"', page.text)
                if not chosen:
                    return  # nothing left
                fields = dict(re.findall(r'name="(set|nonce|version|csrfmiddlewaretoken)" value="(\w+)"', page.text))
                tiers = [[n] for n in chance.sample(range(4), 4)]
                self.ended.wait(chance.uniform(*think_s))
                answer = json.dumps({"tiers": tiers, "flagged": [], "seconds": 2})
                began = time.perf_counter()
                done = client.post("/project/load/", data=fields | {"answer": answer})
                if done.status_code != 302:
                    self.wrong.append(f"submit: {done.status_code}")
                    return
                self.submit_s.append(time.perf_counter() - began)
                self.acknowledged.append((number, int(chosen[1]), tiers))
        except httpx2.TransportError as error:
            if not self.ended.is_set():
                self.wrong.append(repr(error))

    def run(self, url: str, sessions: list[str], seconds: float, think_s: tuple[float, float]) -> None:
        threads = [
            threading.Thread(target=self.label, args=(url, session, number, think_s)) for number, session in enumerate(sessions)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self.ended.set()
        for thread in threads:
            thread.join()

    @staticmethod
    def _ranks(row: Any, tiers: list[list[int]]) -> dict[str, int]:
        """Of what the page sent."""
        from heedful.web.labelling.shared_text import groups

        shown = groups(row.set.completions, row.shown_order)
        return {id_: rank for rank, tier in enumerate(tiers, start=1) for n in tier for id_ in shown[n]}

    def lost_doubled_or_too_many(self) -> list[str]:
        """What the database does not hold of what was acknowledged, or holds too often."""
        from heedful.web.labelling.models import Judgement

        first = Judgement.objects.filter(repeat=False)
        rows = {(row.labeler.username, row.set.pk): row for row in first.select_related("set", "labeler")}
        again = {
            (row.labeler.username, row.set.pk): row
            for row in Judgement.objects.filter(repeat=True).select_related("set", "labeler")
        }
        found = []
        if len(rows) + len(again) != Judgement.objects.count():
            found.append("a labeler's judgement of a set is there twice")
        if len(rows) + len(again) < len(self.acknowledged):
            found.append("fewer judgements than were acknowledged")
        for number, set_pk, tiers in self.acknowledged:
            held = [own[key] for own in (rows, again) if (key := (f"labeler-{number}", set_pk)) in own]
            if not held:
                found.append(f"lost: labeler {number}, set {set_pk}")
            elif not any(row.ranks == self._ranks(row, tiers) for row in held):
                found.append(f"changed: labeler {number}, set {set_pk}")
        counts = Counter(set_pk for _, set_pk in rows)
        most = Judgement.objects.first().set.project.overlap if rows else 0  # type: ignore[union-attr]
        return found + [f"set {set_pk} was judged {count} times" for set_pk, count in counts.items() if count > most]
