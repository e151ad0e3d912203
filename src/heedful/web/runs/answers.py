"""What base and policy answered to the held-out prompts, side by side, to be searched."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from heedful.report.answers import Rows, paired, read_answers
from heedful.report.numbers import finite, sound
from heedful.web.labelling.shared_text import Piece

ORDERS = {
    "prompt": "as in the file",
    "worst": "largest loss of reward first",
    "best": "largest gain of reward first",
    "toxic": "most toxic answer first",
}
SHOWN = ("reward", "toxicity", "length")
MOST_WORDS = 1_500  # that are compared: the time grows with their product


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


def search(run: Path, text: str = "", order: str = "prompt", tag: str = "") -> Rows:
    """Rows with `before` and `after`: whose prompt or answers hold the text, whatever its case. Raises StoreError."""
    found = _rows(run)
    wanted = text.casefold()
    if wanted:
        found = [
            row
            for row in found
            if any(wanted in said.casefold() for said in (row["after"]["prompt"], row["before"]["text"], row["after"]["text"]))
        ]
    if tag:
        found = [row for row in found if tag in _tags(row)]
    if order in ("worst", "best"):
        sign = 1 if order == "worst" else -1
        found = sorted(found, key=lambda row: math.inf if row["change"] is None else sign * row["change"])
    elif order == "toxic":
        found = sorted(found, key=lambda row: -(_number(row["after"].get("toxicity")) or 0.0))
    return found


def tags_of(run: Path) -> list[str]:
    return sorted({tag for row in _rows(run) for tag in _tags(row)})


def shown(row: dict[str, Any]) -> Pair:
    first, second = differing(row["before"]["text"], row["after"]["text"])
    sides = [
        Side(cut, {name: _number(own.get(name)) for name in SHOWN})
        for cut, own in ((first, row["before"]), (second, row["after"]))
    ]
    return Pair(row["after"]["prompt"], _tags(row), row["sample"], sides[0], sides[1], row["change"])


def differing(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Two texts, each cut where it begins or ceases to say what the other one says too, word by word and in the same order."""
    words = [re.findall(r"\S+\s*|\s+", text) for text in (first, second)]
    bare = [[word.strip() for word in side[:MOST_WORDS]] for side in words]
    matched = SequenceMatcher(None, bare[0], bare[1], autojunk=False)
    shared: list[set[int]] = [set(), set()]
    for block in matched.get_matching_blocks():
        for side, start in ((0, block.a), (1, block.b)):
            shared[side] |= set(range(start, start + block.size))
    return _cut(words[0], shared[0]), _cut(words[1], shared[1])


def _cut(words: list[str], shared: set[int]) -> list[Piece]:
    runs = groupby(enumerate(words), lambda one: one[0] in shared)
    return [Piece("".join(word for _, word in run), alike) for alike, run in runs]


def _rows(run: Path) -> Rows:
    files = [run / "evaluate" / f"{side}.jsonl" for side in ("before", "after")]
    if not all(file.exists() for file in files):
        return []
    return _paired(*((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@lru_cache(maxsize=8)
def _paired(before: tuple[Path, int, int], after: tuple[Path, int, int]) -> Rows:
    """By path, time and size, so that a file which was written anew is read anew."""
    return paired(read_answers(before[0]), read_answers(after[0]))


def _tags(row: dict[str, Any]) -> list[str]:
    tags = row["after"].get("tags")
    return [sound(str(tag)) for tag in tags] if isinstance(tags, list) else []


def _number(value: object) -> float | None:
    return value if finite(value) else None
