"""Which policy of a run is in use: the one that it made last, or of those that updates made, the one that was promoted last."""

from __future__ import annotations

import json
from pathlib import Path

ABOUT = "heedful.json"  # in each policy's folder
IN_USE = "in-use.json"  # in a run's folder of versions
FOLDER = "versions"
PLACES = ("*/policy", "round-*/*/policy")


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
    """The version that was promoted or rolled back to last, else the newest policy. None where nothing is saved yet."""
    try:
        name = json.loads((run / FOLDER / IN_USE).read_text(encoding="utf-8"))["policy"]
        chosen = run / str(name)
        if (chosen / ABOUT).is_file():
            return chosen
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return newest_policy(run)
