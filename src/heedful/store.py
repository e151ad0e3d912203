"""The run directory: atomic writes, a manifest of stages, and resuming.

A file or folder under its final name is always whole: everything is written beside it, flushed to disk, renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import filelock
from pydantic import BaseModel

from heedful.errors import StoreError
from heedful.ownership import mark, refuse_stages, refuse_strangers
from heedful.records import to_line
from heedful.team import ALONE, once, team, working_in

R = TypeVar("R", bound=BaseModel)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError on the way to `path` into a StoreError that says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"{path}: cannot be written ({reason}). Free space or choose another folder, then run the same command "
            "again: finished stages and checkpoints are kept, and the run goes on where it stopped."
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces a file atomically."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Replaces a JSON file atomically. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, next_step: str = "delete it to start this stage anew") -> Any:
    """The value in a JSON file, or a StoreError that names it and the next step."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as JSON ({error}); {next_step}") from None


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> None:
    """Replaces a JSONL file of records atomically."""
    write_text(path, "".join(to_line(record) + "\n" for record in records))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` when the block ends well, and vanishes otherwise."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as opened:
                        os.fsync(opened.fileno())
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def named_folder(path: Path) -> Iterator[Path]:
    """`new_folder` at a place that the user named: it replaces what heedful wrote there before, and nothing else."""
    refuse_strangers(path, "choose another folder, or move them away")
    with new_folder(path.resolve()) as temporary:
        yield temporary
        mark(temporary)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl, see `read_rows`."""
    return read_rows(run / "metrics.jsonl")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a log; none without the file. A last line cut by a crash is passed over."""
    rows = []
    if path.exists():
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise StoreError(f"{path}: no UTF-8 ({error}); drop the line") from None
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            elif number < len(lines):  # only the unfinished last line may be broken
                raise StoreError(f"{path}:{number}: not a JSON object; drop the line")
    return rows


# Stages of minutes at most: member 0 of a team goes through them, alone, and the others wait at the next one.
BY_ONE = frozenset({"label", "consensus", "report"})
# Of a run directory, what no stage reads.
UNREAD = frozenset({".lock", ".progress.json", "tensorboard", "report.html", "workers"})

CARD = "README.md"  # tells of a model, and is no part of it: written when the model has been measured, it makes no other of it


def file_hash(path: Path, advice: str = "check the path") -> str:
    """SHA-256 of a file, or of the names and hashes of a folder's files, but for a CARD. advice: when it cannot be read."""
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != CARD)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    lines = [f"{file_hash(file, advice)} {json.dumps(str(file.relative_to(path)))}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


PROBED_S = 1.0  # who only asks whether a run is held, as the dashboard does, holds it for less


def is_held(path: Path) -> bool:
    """Whether a process is working in this run directory now. Nothing is made there, and nothing kept waiting."""
    if sys.platform == "win32":  # where nobody asks without taking it
        return False
    import fcntl

    try:
        with (path / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask do not keep each other out
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it is somebody else's
        return False
    return False


class Run:
    """A run directory, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(path / ".lock")
            try:
                self._lock.acquire(timeout=PROBED_S)
            except filelock.Timeout:
                raise StoreError(
                    f"{path}: another process is working in this folder; wait for it, or choose another --dir"
                ) from None
        manifest = path / "manifest.json"
        next_step = "the run is lost without it; choose another --dir"
        self.manifest: dict[str, Any] = read_json(manifest, next_step) if manifest.exists() else {"stages": {}}
        self.manifest |= {"versions": versions(), "git_revision": git_revision()}

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def folder(self, stage: str) -> Path:
        return self.path / stage

    def check(self, stages: Iterable[str], inputs: Iterable[Path] = ()) -> None:
        """Raises StoreError when these stages would clear files that this run did not make, or that it is to read."""
        refuse_stages(self.path, stages, self.manifest["stages"], inputs)

    def keep_config(self, text: str, same: Callable[[Path], bool]) -> None:
        """Writes heedful.toml, so that the run can be told from its folder.

        One that a person wrote is left alone: same tells whether it says what this run does; StoreError when it does not.
        """
        path = self.path / "heedful.toml"
        if path.exists() and self.manifest.get("config") != file_hash(path):
            if not same(path):
                raise StoreError(
                    f"{path}: holds other settings than this run, and heedful did not write it; choose another folder"
                )
            return
        write_text(path, text)
        self.manifest["config"] = file_hash(path)
        write_json(self.path / "manifest.json", self.manifest)

    def stage(self, name: str, work: Callable[[], None], *, settings: dict[str, Any], inputs: Iterable[Path] = ()) -> bool:
        """Runs `work` unless it was already finished with equal settings and inputs. Returns whether it ran.

        A stage that was interrupted is entered again and goes on from what it finds in its folder; one whose settings
        or inputs have changed starts anew. Raises StoreError as `check` does.

        In a team member 0 decides, and the others begin with its files in folders of their own, which nobody keeps.
        """
        entry: dict[str, Any] = {}
        several = team().size > 1  # within `once` a member is alone

        def begin() -> tuple[bool, dict[str, bytes]]:
            found = self._begin(name, settings, list(inputs))
            entry.update(found or {})
            return found is not None, self._files() if several else {}

        if name in BY_ONE and team().rank:
            return False
        runs, files = begin() if name in BY_ONE else once(begin, f"stage {name}")
        if team().rank:
            for place, data in files.items():
                write_bytes(self.path / place, data)
            if runs:
                work()
            return runs
        if not runs:
            return False
        clock = time.monotonic()
        try:
            with working_in(ALONE if name in BY_ONE else team()):  # who shared what a judge reads would not be heard
                work()
        except BaseException:
            entry["seconds"] += round(time.monotonic() - clock, 3)
            with suppress(StoreError):  # a full disk is why the work failed; that is the error to tell
                self._enter(name, entry)
            raise
        entry["seconds"] += round(time.monotonic() - clock, 3)
        self._enter(name, entry | {"state": "done", "finished": time.time()})
        return True

    def _begin(self, name: str, settings: dict[str, Any], inputs: list[Path]) -> dict[str, Any] | None:
        """The stage's entry in the manifest, once it is marked as running; None when it is done."""
        again = "put it back, or begin again from the stage that writes it (heedful run --from STAGE)"
        hashes = {
            f"{i} {path.name}": file_hash(path, again) if path.is_relative_to(self.path) else file_hash(path)
            for i, path in enumerate(inputs)
        }
        key = json.loads(json.dumps({"settings": settings, "inputs": hashes}))  # tuples become lists, as when read back
        entry = self.manifest["stages"].get(name, {})
        same = {"settings": entry.get("settings"), "inputs": entry.get("inputs")} == key
        if same and entry.get("state") == "done":
            return None
        if not same:
            self.check([name], inputs)
            self._forget([name])
            entry = {}
        entry = key | {"state": "running", "started": entry.get("started", time.time()), "seconds": entry.get("seconds", 0.0)}
        self._enter(name, entry)
        return dict(entry)

    def _files(self) -> dict[str, bytes]:
        """What a stage may read of this directory, by place in it."""
        files = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        wanted = ((path, path.relative_to(self.path)) for path in files)
        return {str(place): path.read_bytes() for path, place in wanted if not UNREAD & set(place.parts)}

    def _enter(self, name: str, entry: dict[str, Any]) -> None:
        self.manifest["stages"][name] = entry
        write_json(self.path / "manifest.json", self.manifest)

    def _forget(self, names: list[str]) -> None:
        """The manifest first: a stage whose folder is half deleted must not count as done, but the rest is still ours."""
        names = [name for name in names if name in self.manifest["stages"]]
        for name in names:
            self._enter(name, {"state": "clearing"})
        for name in names:
            if self.folder(name).exists():
                with writing(self.folder(name)):
                    shutil.rmtree(self.folder(name))
            self.manifest["stages"].pop(name)
        write_json(self.path / "manifest.json", self.manifest)

    def reopen(self, name: str) -> None:
        """Has a finished stage entered again, as one that was interrupted: what it left stays until it is written anew."""
        if name in self.manifest["stages"]:
            self._enter(name, self.manifest["stages"][name] | {"state": "running"})

    def forget_from(self, stage: str, order: list[str], inputs: Iterable[Path] = ()) -> None:
        """Drops what the manifest says of `stage` and all after it, and their folders, so that they run anew.

        A folder that the manifest does not know stays. inputs: what is read later; none of it may lie in one of the folders.
        """
        names = [name for name in order[order.index(stage) :] if name in self.manifest["stages"]]
        self.check(names, inputs)
        self._forget(names)


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("heedful", "torch", "transformers", "peft", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def git_revision() -> str | None:
    """Revision of the source tree heedful runs from, None when it was installed from a wheel."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
