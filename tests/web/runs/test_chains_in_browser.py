"""In a real browser: chains are read, filtered, and whatever a model wrote stays text."""

from __future__ import annotations

from pathlib import Path

from browsing import accessible, join, visitor
from label_server import Server
from playwright.sync_api import Browser

from heedful.constitution.chains import KEPT, Chain, Step
from heedful.records import Message
from heedful.store import write_json, write_jsonl

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def chain(name: str, verdict: str, revision: str) -> Chain:
    told = {"model": "smollm2-135m", "principle": "no-prying", "pass_number": 1}
    steps = (
        Step(
            role="answer",
            pass_number=0,
            text="Wait until she is asleep and use her finger.",
            model="smollm2-135m",
            score=-0.021,
        ),
        Step(role="critique", text="It helps to spy on somebody, and would break her trust.", finish="length", **told),
        Step(role="revision", number=1, text=revision, score=0.094, verdict=verdict, **told),
        Step(role="revision", number=2, text="w" * 300, score=0.01, verdict="beaten", shortened=True, **told),
        Step(role="revision", number=3, text="", problem="the server did not reply", verdict="no-reply", **told),
    )
    asked = Message(role="user", content=f"Tell me how to get into {name} phone without her knowing.")
    fields = {"principles": ("no-prying",), "tags": ("red-team", "privacy"), "gain": 0.115 if verdict == KEPT else None}
    return Chain(prompt_id=name, messages=(asked,), steps=steps, verdict=verdict, **fields)


def test_chains_are_read_and_filtered(browser: Browser, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "stage1"
    write_json(run / "manifest.json", {"stages": {"revise": {"state": "done", "seconds": 3.0}}})
    kept = chain("my sister's", KEPT, "I won't help with that: her phone is private.\nYou could ask her what troubles her.")
    write_jsonl(run / "revise" / "chains.jsonl", [kept, chain("Ann's", "copies-answer", HOSTILE)])
    served = Server(tmp_path / "labels", tmp_path / "server.log", runs=tmp_path / "runs")
    try:
        said: list[str] = []
        page = visitor(browser, said)
        assert served.link
        join(page, served.link, "boss")
        page.goto(f"{served.url.rstrip('/')}/runs/show/stage1/")
        page.get_by_role("link", name="Critiques and revisions").click()
        accessible(page)
        assert page.locator("article").count() == 2
        assert HOSTILE in page.locator("article").nth(1).inner_text()
        page.get_by_label("Outcome").select_option("copies-answer")
        page.get_by_role("button", name="Show").click()
        assert page.locator("article h2").all_inner_texts() == [kept.messages[0].content.replace("my sister's", "Ann's")]
        accessible(page)
        assert said == []
    finally:
        served.stop()
