"""A server's folder of runs, and an admin who looks at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from heedful.web.labelling.models import User


@pytest.fixture
def runs(tmp_path: Path, settings: Any) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    settings.RUNS = [folder]
    return folder


@pytest.fixture
def boss(admin: User) -> Client:
    client = Client()
    client.force_login(admin)
    return client
