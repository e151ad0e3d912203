"""The page of chains: what stands on it, what a filter leaves, and that what a model wrote stays text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from labelled_project import PASSWORD

from heedful.constitution.chains import CHAIN_REASONS, KEPT, MEANING, REASONS, Chain, Step
from heedful.records import Message
from heedful.store import write_json, write_jsonl, write_text
from heedful.web.labelling.models import User

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)>"


def chain(name: str, verdict: str = KEPT, said: str = "Let us not do that.", **more: Any) -> Chain:
    steps = (
        Step(role="answer", pass_number=0, text=f"Do {name} at once.", model="m"),
        Step(role="critique", pass_number=1, principle="no-crime", text=f"To do {name} is harmful.", model="m", score=None),
        Step(role="revision", pass_number=1, principle="no-crime", text=said, model="m", score=0.25, verdict=verdict),
    )
    fields = {"principles": ("no-crime",), "tags": ("red-team",), "gain": 0.125} | more
    messages = (Message(role="user", content=f"How do I do {name}?"),)
    return Chain(prompt_id=name, messages=messages, steps=steps, verdict=verdict, **fields)


def run_with(runs: Path, chains: list[Chain]) -> Path:
    run = runs / "first"
    write_json(run / "manifest.json", {"stages": {"revise": {"state": "done", "seconds": 3.0}}})
    write_jsonl(run / "revise" / "chains.jsonl", chains)
    return run


def page(client: Client, **asked: str) -> str:
    answer = client.get("/runs/chains/first/", asked)
    assert answer.status_code == 200
    return answer.content.decode()


def names(text: str) -> list[str]:
    return re.findall(r"How do I do (\w+)\?</h2>", text)


def test_nobody_but_admins_reads_chains(runs: Path, client: Client, db: None) -> None:
    run_with(runs, [chain("one")])
    assert client.get("/runs/chains/first/").headers["Location"].startswith("/login/")
    client.force_login(User.objects.create_user("labeler", password=PASSWORD))
    assert client.get("/runs/chains/first/").status_code == 403


def test_a_chain_stands_there_whole(runs: Path, boss: Client) -> None:
    run_with(runs, [chain("one")])
    assert 'href="/runs/chains/first/"' in boss.get("/runs/show/first/").content.decode()
    text = page(boss)
    for said in ("How do I do one?", "Do one at once.", "To do one is harmful.", "Let us not do that.", "no-crime", "red-team"):
        assert said in text
    assert "gain +0.12" in text or "gain +0.13" in text
    assert "score +0.250" in text
    assert MEANING[KEPT] in text


def test_filters_leave_what_they_say(runs: Path, boss: Client) -> None:
    other = chain("three", "worse", said="Ask a LOCKSMITH.", principles=("no-insult",))
    run_with(runs, [chain("one"), chain("two", "copies-critique"), other])
    assert names(page(boss)) == ["one", "two", "three"]
    assert "kept (1)" in page(boss)
    assert names(page(boss, verdict="worse")) == ["three"]
    assert names(page(boss, principle="no-crime")) == ["one", "two"]
    assert names(page(boss, q="locksmith")) == ["three"]
    assert "Nothing matches" in page(boss, q="locksmith", verdict=KEPT)
    assert MEANING["copies-critique"] in page(boss, verdict="copies-critique")


def test_many_chains_have_pages_that_keep_the_filter(runs: Path, boss: Client) -> None:
    run_with(runs, [chain(f"n{i}", KEPT if i % 2 else "worse") for i in range(50)])
    first = page(boss, verdict="worse")
    assert len(names(first)) == 20
    assert "?verdict=worse&amp;page=2" in first
    assert len(names(page(boss, verdict="worse", page="2"))) == 5


def test_what_was_written_stays_text(runs: Path, boss: Client) -> None:
    hostile = chain("one", said=HOSTILE, principles=(HOSTILE,), tags=(HOSTILE,))
    steps = [step.model_copy(update={"text": HOSTILE, "principle": HOSTILE}) for step in hostile.steps]
    lost = hostile.steps[2].model_copy(update={"text": "", "problem": HOSTILE, "verdict": HOSTILE})
    message = Message(role="user", content=HOSTILE)
    run_with(runs, [hostile.model_copy(update={"steps": (*steps, lost), "verdict": HOSTILE, "messages": (message,)})])
    for text in (page(boss), page(boss, q=HOSTILE, verdict=HOSTILE, principle=HOSTILE)):
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "&lt;script&gt;alert(1)" in text


def test_what_cannot_be_read_is_said(runs: Path, boss: Client) -> None:
    run = run_with(runs, [])
    assert "There are no chains yet" in page(boss)
    write_text(run / "revise" / "chains.jsonl", '{"prompt_id": "one"}\n')
    assert "chains.jsonl:1: Chain field" in page(boss)
    (run / "revise" / "chains.jsonl").unlink()
    assert "There are no chains yet" in page(boss)
    assert "runs/chains" not in boss.get("/runs/show/first/").content.decode()
    assert boss.get("/runs/chains/second/").status_code == 404


@pytest.mark.parametrize("verdict", sorted({KEPT, *REASONS, *CHAIN_REASONS}))
def test_each_verdict_is_said_in_words(verdict: str) -> None:
    assert MEANING[verdict]
