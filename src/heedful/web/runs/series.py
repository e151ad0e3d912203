"""metrics.jsonl as columns: read once, gone on with as the file grows, and thinned for a screen.

A long run writes tens of megabytes. Lines are parsed when they appear; what a page gets is a few hundred points a curve, each a
point of the file.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from heedful.report.numbers import finite
from heedful.report.thinning import kept

MOST_POINTS = 400  # of a curve on a screen
KEPT_RUNS = 16  # whose columns stay in memory
TAIL = 256  # bytes by which a file is known again
HIGHEST = 2**53  # steps beyond are none
RECENT = 20  # steps that tell how long one takes


_numbers_of_series = count()


@dataclass
class Column:
    """Values of one metric by step, finite ones only. num_broken: how many were no finite numbers."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    num_broken: int = 0


@dataclass
class Stage:
    """Columns by metric, and when each step was written. num_again: steps that are not above the one before them."""

    num_again: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class Series:
    """What was read of a file. place: bytes read, `tail` the last of them: what is there still if it is the same file.

    broken: the line that is no row of metrics though others follow it, or 0. problem: why the file could not be read.
    """

    number: int = field(default_factory=lambda: next(_numbers_of_series))
    place: int = 0
    tail: bytes = b""
    num_lines: int = 0
    broken: int = 0
    problem: str = ""
    stages: dict[str, Stage] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Another one whenever there is something new to show."""
        return f"{self.number}-{self.place}"

    def stage(self, name: str) -> Stage:
        return self.stages.get(name, Stage())

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of one stage, in their order. Whole columns at a time: a long run has hundreds of thousands of numbers."""
        stage = self.stages.setdefault(str(rows[0].get("stage")), Stage())
        steps = np.array([row["step"] for row in rows], dtype=np.int64)
        earlier = [stage.steps[-1]] if stage.steps else []
        stage.num_again += int((np.diff(np.concatenate([earlier, steps])) <= 0).sum())
        stage.steps.frombytes(steps.tobytes())
        stage.times.frombytes(_numbers([row.get("time") for row in rows]).tobytes())
        for name in dict.fromkeys(chain.from_iterable(rows)):
            if name in ("step", "stage", "time"):
                continue
            there = [row for row in rows if name in row]
            values = _numbers([row[name] for row in there])
            whole = np.isfinite(values)
            column = stage.columns.setdefault(name, Column())
            column.steps.frombytes(np.array([row["step"] for row in there], dtype=np.int64)[whole].tobytes())
            column.values.frombytes(values[whole].tobytes())
            column.num_broken += int((~whole).sum())


def _numbers(values: Sequence[object]) -> NDArray[np.float64]:
    """NaN for what is none."""
    if all(type(value) is float for value in values):
        return np.array(values, dtype=np.float64)
    return np.array([float(value) if finite(value) else math.nan for value in values], dtype=np.float64)


_known: OrderedDict[Path, Series] = OrderedDict()
_lock = threading.Lock()


@contextmanager
def reading(run: Path) -> Iterator[Series]:
    """The run's metrics.jsonl up to its last whole line; nothing changes within the block. A file that was written anew, as on
    resuming, is read anew.
    """
    path = run / "metrics.jsonl"
    with _lock:
        series = _known.pop(path, None) or Series()
        try:
            with path.open("rb") as file:
                file.seek(series.place - len(series.tail))
                if file.read(len(series.tail)) != series.tail:
                    series = Series()
                    file.seek(0)
                _take(series, file.read())
        except FileNotFoundError:
            series = Series()
        except OSError as error:
            series = Series(problem=f"metrics.jsonl cannot be read: {error.strerror}.")
        _known[path] = series
        while len(_known) > KEPT_RUNS:
            _known.popitem(last=False)
        yield series


def _take(series: Series, new: bytes) -> None:
    whole = new[: new.rfind(b"\n") + 1]
    series.place += len(whole)
    series.tail = (series.tail + whole[-TAIL:])[-TAIL:]
    rows = []
    for line in whole.split(b"\n")[:-1]:
        series.num_lines += 1
        try:
            row = from_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and type(step := row.get("step")) is int and 0 <= step < HIGHEST:
            rows.append(row)
        elif line.strip():
            series.broken = series.broken or series.num_lines
    for _, own in groupby(rows, key=lambda row: str(row.get("stage"))):
        series.add(list(own))


def thinned(column: Column, most: int = MOST_POINTS) -> dict[str, Any]:
    """For a plot: `steps`, counted from 1, and `values`, at most `most` of each; `num`, how many there are; `num_broken`."""
    steps, values = np.array(column.steps, dtype=np.int64), np.array(column.values, dtype=np.float64)
    if (np.diff(steps) <= 0).any():  # written twice: the later line counts
        steps, last = np.unique(steps[::-1], return_index=True)
        values = values[::-1][last]
    places = kept(values, most)
    return {
        "steps": (steps[places] + 1).tolist(),
        "values": values[places].tolist(),
        "num": len(values),
        "num_broken": column.num_broken,
    }


def step_seconds(stage: Stage) -> float | None:
    """How long one of the last steps took, on the average, evaluations included; None before the second."""
    times = stage.times[-RECENT - 1 :]
    took = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else math.nan
    return took if math.isfinite(took) and took >= 0 else None


def tokens_per_second(stage: Stage, episodes: int) -> Column:
    """Tokens of rollouts over the time from one step's row to the next one's: learning and evaluations are in it."""
    lengths = stage.columns.get("length", Column())
    steps, times = np.array(stage.steps, dtype=np.int64), np.array(stage.times)
    _, at, of = np.intersect1d(steps[1:], np.array(lengths.steps, dtype=np.int64), return_indices=True)
    seconds = np.diff(times)[at]
    told = seconds > 0  # nan is not
    values = episodes * np.array(lengths.values)[of][told] / seconds[told]
    return Column(array("q", steps[1:][at][told].tobytes()), array("d", values.tobytes()))
