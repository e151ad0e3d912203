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
