"""A real browser on the labelling pages and on reports."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from labelled_project import PASSWORD
from playwright.sync_api import Browser, Page, sync_playwright

# Without these Chromium looks for its maker's hosts.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's own; the test is skipped where there is none, and fails there under .ci/run."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "no Chromium on this machine; install the package chromium"
        if os.environ.get("HEEDFUL_CI") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


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
    """No serious issue that Axe knows of, and nothing wider than the screen: on a desk in the light, on a phone in the dark."""
    from axe_playwright_python.sync_playwright import Axe

    before = page.viewport_size
    for scheme, size in (("light", {"width": 1280, "height": 800}), ("dark", {"width": 360, "height": 740})):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size(size)  # type: ignore[arg-type]
        found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
        assert not found, (scheme, [(v["id"], [node["target"] for node in v["nodes"]]) for v in found])
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{page.url} is {wide} pixels wider than a screen of {size['width']}"
    page.emulate_media(color_scheme=None)
    if before is not None:
        page.set_viewport_size(before)
