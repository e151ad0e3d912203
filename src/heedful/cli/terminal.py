"""What every command shows: progress on stderr, results on stdout."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from heedful.progress import Pace

QUIET_S = 15.0  # where no terminal redraws a bar, a line this often says that the work goes on


class Bars:
    """A bar for each stage with its count, note, time and ETA; plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=16),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
        )
        self.tasks: dict[str, TaskID] = {}
        self.pace = Pace()
        self.said = 0.0

    def __enter__(self) -> Bars:
        if self.live:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.progress.stop()

    def __call__(self, stage: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        began = stage not in self.pace.begun
        spent, left = self.pace.spent_s(stage, done), self.pace.eta_s(stage, done, total)
        if self.live:
            if stage not in self.tasks:
                self.tasks[stage] = self.progress.add_task(stage, total=None, note="")
            self.progress.update(self.tasks[stage], completed=done, total=total or None, note=note)
            return
        if began or (total and done == total) or now - self.said > QUIET_S:
            self.said = now
            count = f" {done}/{total}" if total else ""
            eta = f", {left:.0f} s to go" if left and done < total else ""
            print(f"{stage:<9}{count}  {note}  ({spent:.0f} s{eta})", file=sys.stderr, flush=True)

    def for_stage(self, stage: str) -> Any:
        """The same for code that knows of one stage only."""
        return lambda done, total, note: self(stage, done, total, note)


def emit(value: Any, as_json: bool, text: str = "") -> None:
    """One JSON object on stdout, or the text."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False) if as_json else text)


# Control characters, and those that turn the direction of what follows.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text from outside without what a terminal would obey; of control characters only line breaks and tabs stay."""
    return _OBEYED.sub("\N{REPLACEMENT CHARACTER}", text)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout that fits 80 columns. Cells are plain text: nothing in them is read as markup."""
    from rich.text import Text

    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        shown.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    console = Console()
    Console(width=min(80, console.width) if console.is_terminal else 80).print(shown)


LEVELS = " ▁▂▃▄▅▆▇█"


def curve(title: str, points: Sequence[tuple[int, float]], *, width: int = 60, height: int = 5) -> None:
    """A chart on stdout of (step, value), 71 columns wide by default; of several points in one column the last is shown."""
    low, high = min(value for _, value in points), max(value for _, value in points)
    first, last = points[0][0], points[-1][0]
    steps = [first + (last - first) * i / (width - 1) for i in range(width)]
    filled = [[value for step, value in points if step <= here][-1] for here in steps]
    # An eighth at least, so that the lowest value is seen.
    eighths = [1 + round((value - low) / ((high - low) or 1.0) * (8 * height - 1)) for value in filled]
    print(title)
    for row in range(height - 1, -1, -1):
        label = f"{high:.3f}" if row == height - 1 else f"{low:.3f}" if row == 0 else ""
        print(f"{label:>9} │" + "".join(LEVELS[max(0, min(8, n - 8 * row))] for n in eighths))
    print(f"{'step':>9} {first} to {last}\n")
