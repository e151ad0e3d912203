"""Which runs there are below the folders that the server was started with. Pages name runs; only what is found has a name."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from heedful.versions import FOLDER as VERSIONS
from heedful.versions import has_rounds

DEEPEST = 4  # folders below a root
MOST_FOLDERS = 20_000  # that are looked into: a root may be somebody's whole disk
LONGEST_NAME = 300
KEPT_S = 3.0  # a page that follows a run asks for it every two seconds


@dataclass(frozen=True)
class Found:
    """name: as addresses and pages have it, the path below its root."""

    name: str
    path: Path


@dataclass
class Catalogue:
    """runs: by name. unnamed: how many more have a name that no address can hold. cut: whether there were too many folders."""

    runs: list[Found] = field(default_factory=list)
    unnamed: int = 0
    cut: bool = False


_kept: tuple[tuple[Path, ...], float, Catalogue] | None = None
_lock = threading.Lock()


def find_runs(roots: Sequence[Path]) -> Catalogue:
    """Every folder with a manifest. Links to folders are not followed, hidden ones and those in a run not entered.

    Of a run of rounds each round is one, and its versions are none: whoever talks to the newest round talks to the one in use.
    """
    found = Catalogue()
    paths: dict[str, Path] = {}
    for root in roots:
        for path in _below(root, found):
            name = root.resolve().name if path == root else path.relative_to(root).as_posix()
            if name in paths:  # of another root
                name = f"{root.resolve().name}/{name}"
            if name in paths or not _is_nameable(name):
                found.unnamed += 1
            else:
                paths[name] = path
    found.runs = [Found(name, paths[name]) for name in sorted(paths)]
    return found


def find_run(roots: Sequence[Path], name: str) -> Found | None:
    """The run of this name. Nothing is joined to a path: a name that was not found is none. Looks anew every few seconds."""
    global _kept
    with _lock:
        if _kept is None or _kept[0] != tuple(roots) or time.monotonic() - _kept[1] > KEPT_S:
            _kept = tuple(roots), time.monotonic(), find_runs(roots)
        return next((run for run in _kept[2].runs if run.name == name), None)


def _is_nameable(name: str) -> bool:
    return len(name) <= LONGEST_NAME and name.isprintable()


def _below(root: Path, found: Catalogue) -> Iterator[Path]:
    waiting, seen = [(root, 0)], 0
    while waiting:
        if seen == MOST_FOLDERS:
            found.cut = True
            return
        folder, depth = waiting.pop()
        seen += 1
        try:
            if (folder / "manifest.json").is_file():
                yield folder
                continue
            if depth == DEEPEST:
                continue
            with os.scandir(folder) as entries:
                left_out = {"node_modules"} | ({VERSIONS} if has_rounds(folder) else set())
                inside = [entry.name for entry in entries if entry.name not in left_out and _is_looked_into(entry)]
        except OSError:  # not ours to read
            continue
        waiting += [(folder / name, depth + 1) for name in inside]


def _is_looked_into(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
