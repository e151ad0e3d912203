"""The built wheel, installed alone into an empty environment, finds its prompts, its demo and its template."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = """
import json, sys
from pathlib import Path
from heedful.data.bundled import load_bundled
from heedful.report.build import build
import heedful
assert not heedful.__file__.startswith(sys.argv[1]), heedful.__file__
print(len(load_bundled(("prompts", "dialogues"))), build(Path(sys.argv[2])).stat().st_size > 1000)
"""


@pytest.mark.timeout(900)
def test_wheel_alone_in_an_empty_environment(tmp_path: Path) -> None:
    def run(*command: str | Path) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python, pip = (
        tmp_path / "venv/bin/python",
        [tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet", "--no-compile"],
    )
    run(*pip, "torch==2.13.0", "-c", ROOT / "constraints.txt")
    run(*pip, wheel, "-c", ROOT / "constraints.txt")
    (tmp_path / "run").mkdir()
    assert run(python, "-c", CODE, ROOT, tmp_path / "run").split() == ["340", "True"]
    heedful = tmp_path / "venv/bin/heedful"
    assert run(heedful, "--version").startswith("heedful 0.")
    run(heedful, "init", tmp_path / "project")
    # The demo's configuration is read, and refused for the reason given: so it was found.
    done = subprocess.run(
        [str(heedful), "demo", "--dir", str(tmp_path / "demo"), "--set", "model.source=./absent"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "absent: no such folder" in done.stderr
