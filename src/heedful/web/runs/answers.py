"""What base and policy answered to the held-out prompts, side by side, to be searched."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from heedful.web.labelling.shared_text import Piece, pieces

ORDERS = {
    "prompt": "as in the file",
    "worst": "largest loss of reward first",
    "best": "largest gain of reward first",
    "toxic": "most toxic answer first",
}
SHOWN = ("reward", "toxicity", "rubric", "length")


@dataclass(frozen=True)
class Side:
    """An answer cut where it begins or ceases to be shared with the other one, and what was measured of it."""

    pieces: list[Piece]
    figures: dict[str, float | None]

    @property
    def empty(self) -> bool:
        return not any(piece.text.strip() for piece in self.pieces)


@dataclass(frozen=True)
class Pair:
    """The n-th answers to a prompt. change: of the reward; None where a reward is no number."""

    prompt: str
    tags: list[str]
    sample: int
    before: Side
    after: Side
    change: float | None


class UnreadableError(Exception):
    """A file of answers is damaged; the text says which, where, and what to do."""


def search(run: Path, text: str = "", order: str = "prompt", tag: str = "") -> list[dict[str, Any]]:
    """Rows with `before` and `after`: whose prompt or answers hold the text, whatever its case. Raises UnreadableError."""
    found = _rows(run)
    wanted = text.casefold()
    if wanted:
        found = [
            row
            for row in found
            if any(wanted in said.casefold() for said in (row["prompt"], row["before"]["text"], row["after"]["text"]))
        ]
    if tag:
        found = [row for row in found if tag in row["tags"]]
    if order in ("worst", "best"):
        sign = 1 if order == "worst" else -1
        found = sorted(found, key=lambda row: math.inf if row["change"] is None else sign * row["change"])
    elif order == "toxic":
        found = sorted(found, key=lambda row: -(_number(row["after"].get("toxicity")) or 0.0))
    return found


def tags_of(run: Path) -> list[str]:
    return sorted({tag for row in _rows(run) for tag in row["tags"]})


def shown(row: dict[str, Any]) -> Pair:
    first, second = pieces([row["before"]["text"], row["after"]["text"]])
    sides = [
        Side(cut, {name: _number(own.get(name)) for name in SHOWN})
        for cut, own in ((first, row["before"]), (second, row["after"]))
    ]
    return Pair(row["prompt"], row["tags"], row["sample"], sides[0], sides[1], row["change"])


def _rows(run: Path) -> list[dict[str, Any]]:
    files = [run / "evaluate" / f"{side}.jsonl" for side in ("before", "after")]
    if not all(file.exists() for file in files):
        return []
    return _paired(*((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@lru_cache(maxsize=8)
def _paired(before: tuple[Path, int, int], after: tuple[Path, int, int]) -> list[dict[str, Any]]:
    """By path, time and size, so that a file which was written anew is read anew."""
    first, second = (_numbered(path) for path, _, _ in (before, after))
    found = []
    for key, new in second.items():
        if key in first:
            old = first[key]
            rewards = _number(old.get("reward")), _number(new.get("reward"))
            change = rewards[1] - rewards[0] if rewards[0] is not None and rewards[1] is not None else None
            tags = [str(tag) for tag in new.get("tags", [])]
            found.append(
                {"prompt": new["prompt"], "tags": tags, "sample": key[1], "before": old, "after": new, "change": change}
            )
    return found


def _numbered(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    seen: Counter[str] = Counter()
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("prompt_id", "prompt", "text")):
            raise UnreadableError(
                f"{path.name}, line {number}: no answer with its prompt; run 'heedful run --from evaluate' again"
            )
        seen[row["prompt_id"]] += 1
        found[row["prompt_id"], seen[row["prompt_id"]]] = row
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
