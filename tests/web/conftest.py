"""A project of four sets, people to label it, a server and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import chromium
from label_server import Server
from labelled_project import COMPLETIONS, PASSWORD, PROMPTS
from playwright.sync_api import Browser

from heedful.web.labelling import background
from heedful.web.labelling.files import Task, create_project
from heedful.web.labelling.models import Project, User


@pytest.fixture(scope="session", autouse=True)
def _statistics_wait_for_nobody() -> None:
    """Here no labeler is kept waiting by them, and at a low priority they would wait for the other half of the suite."""
    background.NICENESS = 0


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
    with chromium() as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path / "labels", tmp_path / "server.log")
    yield found
    found.stop()
