"""A project of four sets, and people to label it."""

from __future__ import annotations

import pytest
from labelled_project import COMPLETIONS, PASSWORD, PROMPTS

from heedful.web.labelling.files import create_project
from heedful.web.labelling.models import Project, User


@pytest.fixture
def project(db: None) -> Project:
    return create_project("My house", PROMPTS, COMPLETIONS, criterion="helpfulness")


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
