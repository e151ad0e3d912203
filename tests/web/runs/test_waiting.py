"""A run that waits for people: on its page, in the list, and in a real browser while they judge."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import run_folder
from browsing import accessible, join, visitor
from django.test import Client
from label_server import Server
from labelled_project import COMPLETIONS, PROMPTS
from playwright.sync_api import Browser

from heedful.store import Run, read_json, write_json
from heedful.waiting import FILE
from heedful.web.labelling.files import Task, create_project
from heedful.web.labelling.models import CompletionSet


def waiting(run: Path, project: str, *, done: int = 1, total: int = 4) -> Path:
    """A round whose label stage waits for a project."""
    run_folder.make(run, 0)
    stages = {"sample": {"state": "done", "seconds": 12.0}, "label": {"state": "running", "seconds": 1.0}}
    write_json(run / "manifest.json", {"stages": stages})
    told = {"done": done, "total": total, "project": project, "server": "http://127.0.0.1:8765", "time": time.time()}
    write_json(run / FILE, told)
    return run


def test_the_page_says_what_the_run_waits_for(runs: Path, boss: Client) -> None:
    waiting(runs / "first" / "round-2", "first-round-2-0123456789")
    page = boss.get("/runs/show/first/round-2/").content.decode()
    assert "waiting for labels: 1 of 4 sets; the same heedful run goes on when they have come" in page
    assert "The project" not in page, "it is on another server"
    listed = boss.get("/runs/").content.decode()
    assert 'class="state waiting"' in listed
    assert "label 1/4 sets" in listed


def test_counts_are_this_servers_own_where_the_project_is_here(runs: Path, boss: Client) -> None:
    project = create_project("first-round-2-0123456789", PROMPTS, COMPLETIONS, Task(overlap=1))
    waiting(runs / "first" / "round-2", project.slug)
    CompletionSet.objects.filter(project=project, prompt_id__in=("hot", "wifi", "knock")).update(num_judged=1)
    page = boss.get("/runs/show/first/round-2/").content.decode()
    assert "waiting for labels: 3 of 4 sets" in page
    assert f'href="/manage/project/{project.slug}/"' in page
    told = boss.get("/runs/data/first/round-2/").json()["standing"]
    assert (told["state"], told["done"], told["total"]) == ("waiting", 3, 4)
    assert "label 3/4 sets" in boss.get("/runs/").content.decode()


def test_a_run_that_went_on_waits_no_more(runs: Path, boss: Client) -> None:
    """The file may be left of a command that was killed just after."""
    run = waiting(runs / "first", "first-round-1-0123456789")
    manifest = read_json(run / "manifest.json")
    manifest["stages"]["label"]["state"] = "done"
    write_json(run / "manifest.json", manifest)
    assert "waiting for labels" not in boss.get("/runs/show/first/").content.decode()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "runs").mkdir()
    found = Server(tmp_path / "labels", tmp_path / "server.log", runs=tmp_path / "runs")
    yield found
    found.stop()


def test_in_a_browser_the_counts_rise_while_people_judge(browser: Browser, served: Server, tmp_path: Path) -> None:
    run = waiting(tmp_path / "runs" / "house" / "round-2", "house-round-2-0123456789", done=37, total=120)
    said: list[str] = []
    page = visitor(browser, said)
    assert served.link
    join(page, served.link, "boss")
    with Run(run):
        page.goto(f"{served.url}/runs/show/house/round-2/")
        page.wait_for_selector("#state.waiting")
        assert page.locator("#note").inner_text() == "waiting for labels: 37 of 120 sets"
        accessible(page)
        told = read_json(run / FILE)
        write_json(run / FILE, told | {"done": 38})
        page.wait_for_function("() => document.querySelector('#note').textContent.includes('38 of 120')", timeout=20_000)
        assert page.locator("#bar").get_attribute("value") == "38"
    page.wait_for_function("() => document.querySelector('#note').textContent.includes('the same heedful run')", timeout=40_000)
    assert said == []
