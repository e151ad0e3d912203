"""Without the real data tests are skipped on a contributor's machine and fail under .ci/run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEST = "tests/data/test_formats.py::test_prompts_of_a_real_preference_file"


@pytest.mark.parametrize(("variables", "outcome"), [({"CI": "true"}, "1 skipped"), ({"HEEDFUL_CI": "1"}, "1 error")])
def test_absent_data(tmp_path: Path, variables: dict[str, str], outcome: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "HEEDFUL_CI")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", TEST],
        cwd=ROOT,
        env=environment | {"HEEDFUL_SHARED_DATA": str(tmp_path / "absent")} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert outcome in done.stdout, done.stdout + done.stderr


def test_continuous_integration_sets_the_variable() -> None:
    assert "export HEEDFUL_CI=1\n" in (ROOT / ".ci/run").read_text()
