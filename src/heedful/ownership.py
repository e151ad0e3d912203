"""What may be emptied or replaced: only what heedful made, and nothing that it is about to read."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from heedful.errors import StoreError

MARK = "heedful-files.json"  # lists the files that heedful put into a folder the user named


def strangers(folder: Path) -> list[str]:
    """Files below a folder, or the name of a file in its place, that its mark does not list."""
    if not folder.is_dir():
        return [folder.name] if folder.exists() or folder.is_symlink() else []
    try:
        ours = {MARK, *json.loads((folder / MARK).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, TypeError, KeyError):
        ours = set()
    return sorted(set(_files(folder)) - ours)


def mark(folder: Path) -> None:
    """Writes down that heedful made all that now lies in a folder."""
    text = json.dumps({"about": "Files that heedful wrote; it replaces no others.", "files": sorted(_files(folder))}, indent=2)
    (folder / MARK).write_text(text + "\n", encoding="utf-8")


def _files(folder: Path) -> list[str]:
    """Relative names of all that can hold somebody's work: a link to a folder counts as a file."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]


def refuse_strangers(folder: Path, next_step: str) -> None:
    """Raises StoreError when a folder, or a file in its place, holds what heedful did not write."""
    found = strangers(folder)
    if found:
        names = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise StoreError(f"{folder}: holds what heedful did not write ({names}), so it is left as it is; {next_step}")


def refuse_stages(root: Path, stages: Iterable[str], made: Collection[str], inputs: Iterable[Path]) -> None:
    """Raises StoreError when a run in `root` cannot give these stages their folders without taking somebody's files.

    made: stages whose folders are the run's own. inputs: what is read; none may lie where a stage writes and clears.
    """
    inputs = list(inputs)
    for stage in stages:
        folder = root / stage
        for path in inputs:
            # A link counts where it stands and where it leads.
            places = (path.resolve(), path.parent.resolve() / path.name)
            if path.exists() and any(place.is_relative_to(folder.resolve()) for place in places):
                raise StoreError(
                    f"{path}: lies in {folder}, which stage '{stage}' empties when it starts anew; move it out of there and "
                    "give its new place"
                )
        if stage not in made:
            refuse_strangers(
                folder, f"stage '{stage}' needs this folder for itself: move it away, or choose another run directory"
            )
