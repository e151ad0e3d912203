"""What all tests share: the folder of real data, which is not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data from HEEDFUL_SHARED_DATA, or from ../shared/data beside the repository; without it the test is skipped.

    Under .ci/run its absence is a failure: a suite that skips everything there would look green.
    """
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("HEEDFUL_SHARED_DATA") or beside)
    if folder.is_dir():
        return folder
    reason = f"real data not found in {folder}; set HEEDFUL_SHARED_DATA"
    if os.environ.get("HEEDFUL_CI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that ask for most time come first, so that not one of them goes on alone when all others are done."""
    asked: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        asked[item.path] = max(asked.get(item.path, 0), float(marker.args[0]) if marker else 0)
    items.sort(key=lambda item: -asked[item.path])
