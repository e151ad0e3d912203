"""What each key does in each mode, and that keys can be switched off."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import accessible, join, visitor
from label_server import Server
from labelled_project import COMPLETIONS, PROMPTS
from playwright.sync_api import Browser, Page

from heedful.records import Judgement, Vote, read_jsonl
from heedful.store import write_jsonl

# keys typed one after the other -> what the page says of it
TYPED = {
    "abc": "1: A · 2: B · 3: C",
    "abca1": "1: A · 2: B · 3: C",  # where it is already
    "abca2": "1: B = A · 2: C",
    "abca3": "1: B · 2: C = A",
    "abcc1": "1: A = C · 2: B",
    "abc9": "1: A · 2: B · 3: C",
    "ab=c": "1: A = B · 2: C",
    "abc==": "1: A · 2: B = C",
    "a=": "1: A",
    "aF": "flagged: A",
    "aFF": "Type the letters from best to worst.",
    "aFbc": "1: B · 2: C · flagged: A",
    "bcaFa1": "1: B = A · 2: C",
    "abcuu": "1: A",
    "abFuc": "1: A · 2: B · 3: C",
    "abxyz": "1: A · 2: B",
}
THUMBS = {
    "abc": "up: A, B, C",
    "aabc": "up: B, C · down: A",
    "aaa": "up: A",
    "ab=F1": "up: A, B",
    "aau": "up: A",
    "bbaacc": "down: B, A, C",
}
VERSUS = {
    "a": "1: A · 2: B",
    "b": "1: B · 2: A",
    "ab": "1: B · 2: A",
    "=": "1: A = B",
    "a=": "1: A = B",
    "aF": "1: B · flagged: A",
    "aFb": "1: B · flagged: A",
    "aFbF": "flagged: A, B",
    "aFa": "1: A · 2: B",
    "aFF": "Type A or B for the better one, = if they are level.",
    "=u": "Type A or B for the better one, = if they are level.",
}
NEITHER = "Type the letters from best to worst."


@pytest.fixture
def page(browser: Browser) -> Page:
    return visitor(browser, [])


def begin(page: Page, server: Server, folder: Path, *more: str) -> None:
    """One set of "knock", or of its first two answers in A-or-B mode, in front of somebody who has just joined."""
    own = [found for found in COMPLETIONS if found.prompt_id == "knock"]
    write_jsonl(folder / "prompts.jsonl", PROMPTS[1:2])
    write_jsonl(folder / "completions.jsonl", own)
    write_jsonl(folder / "against.jsonl", own[1:2])
    given = ("--prompts", str(folder / "prompts.jsonl"), "--completions", str(folder / "completions.jsonl"))
    server.run("import", "--project", "Keys", *given, *more)
    join(page, server.run("users invite", "--project", "Keys", "--url", server.url).strip(), "ada")
    page.goto(f"{server.url}/project/keys/")
    page.get_by_role("button", name="I have read this").click()
    page.wait_for_selector(".card")


def typed(page: Page, keys: str) -> str:
    """What the page says after these keys on an untouched set."""
    page.evaluate("localStorage.clear(); removeEventListener('pagehide', keep)")
    page.reload()
    for key in keys:
        page.keyboard.press(key)
    return page.locator("#ranking").inner_text()


def test_ranking(page: Page, server: Server, tmp_path: Path) -> None:
    begin(page, server, tmp_path)
    assert {keys: typed(page, keys) for keys in TYPED} == TYPED
    typed(page, "ab")
    page.keyboard.down("=")
    assert page.locator("#submit").is_disabled()
    page.get_by_role("button", name="Skip").click()
    page.wait_for_selector("text=Nothing left for you")


def test_thumbs(page: Page, server: Server, tmp_path: Path) -> None:
    begin(page, server, tmp_path, "--mode", "thumbs")
    accessible(page)
    assert {keys: typed(page, keys) for keys in THUMBS} == THUMBS
    typed(page, "ab")
    assert page.locator("#submit").is_disabled(), "one has no thumb yet"
    page.get_by_role("button", name="Thumb down for C").click()
    texts = [card.locator(".text").inner_text() for card in page.locator(".card").all()]
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Nothing left for you")
    server.run("export", "--project", "Keys", "--output", str(tmp_path / "votes.jsonl"))
    said_by = {found.id: found.text for found in COMPLETIONS}
    votes = {said_by[vote.completion_id]: vote.value for vote in read_jsonl(tmp_path / "votes.jsonl", Vote)}
    assert votes == {texts[0]: 1, texts[1]: 1, texts[2]: 0}


def test_a_or_b(page: Page, server: Server, tmp_path: Path) -> None:
    begin(page, server, tmp_path, "--mode", "versus", "--against", str(tmp_path / "against.jsonl"))
    accessible(page)
    assert {keys: typed(page, keys) for keys in VERSUS} == VERSUS
    typed(page, "b")
    texts = [card.locator(".text").inner_text() for card in page.locator(".card").all()]
    page.locator("summary").click()
    page.get_by_label("tone").check()
    page.reload()
    assert page.locator("#ranking").inner_text() == VERSUS["b"], "what was done survives"
    page.locator("summary").click()
    assert page.get_by_label("tone").is_checked()
    page.locator(".card").first.focus()
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Nothing left for you")
    server.run("export", "--project", "Keys", "--output", str(tmp_path / "judgements.jsonl"))
    (judgement,) = read_jsonl(tmp_path / "judgements.jsonl", Judgement)
    said_by = {f"{side}/{found.id}": found.text for found in COMPLETIONS for side in ("first", "second")}
    assert [said_by[id_] for id_ in sorted(judgement.ranks, key=judgement.ranks.__getitem__)] == texts[::-1]
    assert judgement.model_extra is not None
    assert judgement.model_extra["reasons"] == ["tone"]


def test_letter_keys_can_be_switched_off(page: Page, server: Server, tmp_path: Path) -> None:
    """WCAG 2.1.4; the choice is remembered, buttons go on working."""
    begin(page, server, tmp_path)
    page.get_by_role("button", name="Letter keys").click()
    page.reload()
    for key in "abc":
        page.keyboard.press(key)
    assert page.locator("#ranking").inner_text() == NEITHER
    page.get_by_role("button", name="Rank B next").click()
    assert page.locator("#ranking").inner_text() == "1: B"
    page.get_by_role("button", name="Letter keys").click()
    page.keyboard.press("a")
    assert page.locator("#ranking").inner_text() == "1: B · 2: A"


def test_logging_out_leaves_no_draft(page: Page, server: Server, tmp_path: Path) -> None:
    begin(page, server, tmp_path)
    page.keyboard.press("a")
    drafts = "Object.keys(localStorage).filter(key => key.startsWith('heedful-draft-')).length"
    assert page.evaluate(drafts) == 1
    page.get_by_role("button", name="Log out").click()
    page.wait_for_selector("text=There is no sign-up")
    assert page.evaluate(drafts) == 0
