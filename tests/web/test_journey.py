"""A whole journey in a real browser: invited, logged in, instructed, ranking by keys; the export is what was typed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from label_server import Server
from labelled_project import COMPLETIONS, PASSWORD, PROMPTS, SAID
from playwright.sync_api import Browser, Page, sync_playwright

from heedful.records import Judgement, read_jsonl
from heedful.store import write_jsonl

# Without these Chromium looks for its maker's hosts.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        reason = "no Chromium on this machine; install the package chromium"
        if os.environ.get("HEEDFUL_CI") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path / "labels", tmp_path / "server.log")
    yield found
    found.stop()


def visitor(browser: Browser, said: list[str]) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    return page


def join(page: Page, link: str, name: str) -> None:
    page.goto(link)
    accessible(page)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password", exact=False).first.fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.get_by_role("button", name="Join").click()
    page.wait_for_selector("text=Your projects")


def accessible(page: Page) -> None:
    """No serious issue that Axe knows of."""
    from axe_playwright_python.sync_playwright import Axe

    found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    assert not found, [(v["id"], [node["target"] for node in v["nodes"]]) for v in found]


def texts(page: Page) -> list[str]:
    return [card.locator(".text").inner_text() for card in page.locator(".card").all()]


def test_the_whole_journey(browser: Browser, server: Server, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    write_jsonl(tmp_path / "completions.jsonl", COMPLETIONS)
    said: list[str] = []
    admin, labeler = visitor(browser, said), visitor(browser, said)

    assert server.link
    join(admin, server.link, "boss")
    admin.get_by_role("link", name="Manage").click()
    accessible(admin)
    admin.get_by_label("Name").fill("My house")
    admin.get_by_label("Overlap").fill("1")
    admin.get_by_label("Prompts").set_input_files(tmp_path / "prompts.jsonl")
    admin.get_by_label("Completions").set_input_files(tmp_path / "prompts.jsonl")
    admin.get_by_role("button", name="Create").click()
    assert "prompts.jsonl:1: Completion field 'prompt_id'" in admin.locator(".errorlist").inner_text()
    admin.get_by_label("Prompts").set_input_files(tmp_path / "prompts.jsonl")
    admin.get_by_label("Completions").set_input_files(tmp_path / "completions.jsonl")
    admin.get_by_role("button", name="Create").click()
    admin.get_by_role("button", name="Invite a labeler").click()
    join(labeler, admin.locator("#link").inner_text(), "ada")

    labeler.get_by_role("link", name="Begin").click()
    assert "Flag what cannot be ranked" in labeler.locator("article").inner_text()
    accessible(labeler)
    labeler.get_by_role("button", name="I have read this").click()

    typed: dict[str, tuple[list[list[str]], list[str]]] = {}
    for _ in range(4):
        labeler.wait_for_selector(".card")
        before = labeler.locator("input[name=set]").input_value()
        prompt_id = rank(labeler, typed)
        accessible(labeler)
        labeler.keyboard.press("Enter")
        labeler.wait_for_function("was => document.querySelector('input[name=set]')?.value !== was", arg=before)
        assert prompt_id in typed
    assert labeler.get_by_text("Nothing left for you").is_visible()
    assert labeler.title() == "My house - heedful", "what a model wrote has run"

    admin.goto(f"{server.url}/manage/my-house/")
    assert "4 of 4 judgements" in admin.locator("main").inner_text()
    assert admin.locator("tr", has_text="ada").locator("td.number").inner_text() == "4"
    accessible(admin)
    with admin.expect_download() as download:
        admin.get_by_role("link", name="Export judgements").click()
    clicked = tmp_path / "clicked.jsonl"
    download.value.save_as(clicked)
    by_command = tmp_path / "by-command.jsonl"
    server.run("export", "--project", "My house", "--output", str(by_command))
    assert clicked.read_text() == by_command.read_text()
    judgements = read_jsonl(clicked, Judgement, unique="id")
    said_by = {completion.id: completion.text for completion in COMPLETIONS}
    found = {}
    for judgement in judgements:
        assert judgement.labeler == "ada"
        tiers: dict[int, set[str]] = {}
        for id_, place in judgement.ranks.items():
            tiers.setdefault(place, set()).add(said_by[id_])
        found[judgement.prompt_id] = [tiers[place] for place in sorted(tiers)], {said_by[id_] for id_ in judgement.flagged}
    assert found == {id_: ([set(tier) for tier in tiers], set(flags)) for id_, (tiers, flags) in typed.items()}
    assert said == ["Failed to load resource: the server responded with a status of 404 (Not Found)"] * len(said)


def rank(page: Page, typed: dict[str, tuple[list[list[str]], list[str]]]) -> str:
    """Ranks what is shown, each set in another way, and notes what was meant."""
    shown = texts(page)
    prompt_id = next(id_ for id_, all_said in SAID.items() if set(shown) == set(all_said))
    press = page.keyboard.press
    if prompt_id == "odd":  # a strict ranking of four: five keys, with Enter
        for key in "dbca":
            press(key)
        typed[prompt_id] = [[shown[3]], [shown[1]], [shown[2]], [shown[0]]], []
    elif prompt_id == "hot":  # a tie is one more; what was done survives a reload
        assert len(shown) == 3, "exact duplicates are shown once"
        assert page.locator(".shared").first.inner_text().startswith("Open the windows at night")
        press("c")
        press("a")
        press("=")
        page.reload()
        press("b")
        typed[prompt_id] = [[shown[2], shown[0]], [shown[1]]], []
    elif prompt_id == "knock":  # a flag, a slip undone, a digit, a button
        press("a")
        press("F")
        assert page.locator("#submit").is_disabled(), "nothing is stored before each is ranked or flagged"
        press("Enter")
        press("b")
        press("F")
        press("u")
        press("c")
        press("1")
        press("u")
        page.get_by_role("button", name="Move C up").click()
        typed[prompt_id] = [[shown[2]], [shown[1]]], [shown[0]]
    else:
        assert page.locator(".warning").is_visible()
        press("a")
        assert "rank 1" not in page.locator(".cards").inner_text(), "hidden text is not ranked"
        page.get_by_role("button", name="Show it").click()
        page.get_by_role("button", name="Rank B next").click()
        page.get_by_role("button", name="Rank A next").click()
        typed[prompt_id] = [[shown[1]], [shown[0]]], []
    assert page.locator("#submit").is_enabled()
    return prompt_id
