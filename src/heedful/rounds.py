"""Which round of a run this is, and what it goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

STRIDE = 1_000_000  # between the seeds of two rounds: none repeats the draws of another, nor those of the evaluation


@dataclass(frozen=True)
class Round:
    """number: from 1. start: the policy that answers and learns on; None: the base. earlier: directories of rounds before."""

    number: int = 1
    start: Path | None = None
    earlier: tuple[Path, ...] = ()

    def seed(self, seed: int) -> int:
        """Of what is drawn in this round; in the first one the run's own."""
        return seed + STRIDE * (self.number - 1)

    def share(self, records: Sequence[T], number: int) -> list[T]:
        """The next `number` of them, and from the first on again when all have had their turn; 0: all."""
        if not number or number >= len(records):
            return list(records)
        first = number * (self.number - 1)
        return [records[(first + place) % len(records)] for place in range(number)]


def folder_of(run: Path, number: int) -> Path:
    """The run directory of a round."""
    return run / f"round-{number}"


def rounds_in(run: Path) -> list[Path]:
    """Run directories of the rounds that have begun, in order."""
    found: list[Path] = []
    while (folder := folder_of(run, len(found) + 1)).joinpath("manifest.json").is_file():
        found.append(folder)
    return found
