"""Which runs there are below the folders that the server was started with. Pages name runs; only what is found has a name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DEEPEST = 4  # folders below a root
MOST_FOLDERS = 20_000  # that are looked into: a root may be somebody's whole disk


@dataclass(frozen=True)
class Found:
    """name: as addresses and pages have it, the path below its root."""

    name: str
    path: Path


def find_runs(roots: Sequence[Path]) -> list[Found]:
    """Every folder with a manifest, by name. Links to folders are not followed, hidden ones and those in a run not entered."""
    found: dict[str, Path] = {}
    for root in roots:
        for path in _below(root):
            name = root.resolve().name if path == root else path.relative_to(root).as_posix()
            if name in found:  # of another root
                name = f"{root.resolve().name}/{name}"
            if name not in found:
                found[name] = path
    return [Found(name, found[name]) for name in sorted(found)]


def find_run(roots: Sequence[Path], name: str) -> Found | None:
    """The run of this name. Nothing is joined to a path: a name that was not found is none."""
    return next((run for run in find_runs(roots) if run.name == name), None)


def _below(root: Path) -> Iterator[Path]:
    waiting, seen = [(root, 0)], 0
    while waiting and seen < MOST_FOLDERS:
        folder, depth = waiting.pop()
        seen += 1
        if (folder / "manifest.json").is_file():
            yield folder
            continue
        if depth == DEEPEST:
            continue
        try:
            with os.scandir(folder) as entries:
                inside = [entry.name for entry in entries if _is_looked_into(entry)]
        except OSError:  # not ours to read
            continue
        waiting += [(folder / name, depth + 1) for name in inside]


def _is_looked_into(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name != "node_modules" and entry.is_dir(follow_symlinks=False)
