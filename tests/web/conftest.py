"""A project of four sets, people to label it, a server and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import FLAGS
from label_server import Server
from labelled_project import COMPLETIONS, PASSWORD, PROMPTS
from playwright.sync_api import Browser, sync_playwright

from heedful.web.labelling.files import Task, create_project
from heedful.web.labelling.models import Project, User


@pytest.fixture
def project(db: None) -> Project:
    return create_project("My house", PROMPTS, COMPLETIONS, Task())


@pytest.fixture
def labelers(project: Project) -> list[User]:
    """Five members who have read the instructions."""
    people = [User.objects.create_user(f"labeler-{i}", password=PASSWORD) for i in range(5)]
    project.members.add(*people)
    project.instructions.get().readers.add(*people)
    return people


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_user("boss", password=PASSWORD, is_staff=True)


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
