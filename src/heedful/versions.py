"""Which policy of a run is in use: the one that it made last, or of those that updates made, the one that was promoted last."""

from __future__ import annotations

import json
import re
from pathlib import Path

ABOUT = "heedful.json"  # in each policy's folder
IN_USE = "in-use.json"  # in a run's folder of versions
FOLDER = "versions"
LOG = "versions.jsonl"  # in it: a line a version, the run's own first
PLACES = ("*/policy", "round-*/*/policy")


def root_of(run: Path) -> Path:
    """The run whose versions and feedback these are: of a round, and of a version, the run that it is part of; else itself."""
    place = run if run.name else run.absolute()  # "." has no name
    if place.parent.name == FOLDER and place.name.isdigit():
        whole = place.parent.parent
        return whole if (whole / "manifest.json").is_file() or has_rounds(whole) else run
    return place.parent if re.fullmatch(r"round-\d+", place.name) and has_rounds(place.parent) else run


def has_rounds(run: Path) -> bool:
    return (run / "round-1" / "manifest.json").is_file()


def version_of(policy: Path) -> str:
    """What a saved policy calls itself; "" where it says nothing."""
    try:
        return str(json.loads((policy / ABOUT).read_text(encoding="utf-8")).get("policy_version", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def newest_policy(run: Path) -> Path | None:
    """Of a run, or of the newest of its rounds; updates aside. None where nothing is saved yet."""
    newest: tuple[float, Path] | None = None
    for pattern in PLACES:
        for folder in run.glob(pattern):
            try:
                saved = (folder / ABOUT).stat().st_mtime
            except OSError:  # not one of ours, or being replaced
                continue
            newest = max(newest or (saved, folder), (saved, folder))
    return newest[1] if newest else None


def policy_in_use(run: Path) -> Path | None:
    """The version that was promoted or rolled back to last, else the newest policy. None where nothing is saved yet.

    Of a round: the version in use if the versions of the whole run go on from this round. Of a version: its own policy.
    """
    root = root_of(run)
    try:
        chosen = root / str(json.loads((root / FOLDER / IN_USE).read_text(encoding="utf-8"))["policy"])
        if (chosen / ABOUT).is_file() and (root == run or _first(root).is_relative_to(root / run.absolute().name)):
            return chosen
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return newest_policy(run)


def _first(root: Path) -> Path:
    """Version 0. Raises OSError, ValueError or LookupError where the log does not say."""
    with (root / FOLDER / LOG).open(encoding="utf-8") as lines:
        return root / str(json.loads(lines.readline())["policy"])
