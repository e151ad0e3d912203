"""Where in a TOML file a key stands: tomllib says what a file holds, and not on which line."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from heedful.errors import ConfigError

Place = tuple[str | int, ...]  # as pydantic's `loc`: ("principles", 2, "weight")


def read_toml(path: Path, advice: str) -> tuple[dict[str, Any], str]:
    """What the file holds, and its text. advice: the next step where it cannot be read. Raises ConfigError with the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 ({error.reason}); save the file as UTF-8") from None
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        said = re.search(r" \(at line (\d+), column \d+\)| \(at end of document\)", str(error))
        line = int(said[1]) if said and said[1] else text.count("\n") + (not text.endswith("\n"))
        problem = str(error).replace(said[0], "") if said else str(error)
        raise ConfigError(f"{path}:{line}: not valid TOML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: lists or tables stand in each other too deeply; mend the file") from None


def lines_of(text: str) -> dict[Place, int]:
    """The line of each table and each key in valid TOML, the first being 1. Of what stands in one value, the value's line."""
    found: dict[Place, int] = {(): 1}
    numbers: Counter[Place] = Counter()
    table: Place = ()
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first = at
        at += 1
        bare = lines[first].strip()
        if not bare or bare.startswith("#"):
            continue
        if bare.startswith("["):
            names = _names(tomllib.loads(bare))
            table = _inside(names, numbers, new=bare.startswith("[["))
            found.setdefault(table[: len(table) - isinstance(table[-1], int)], first + 1)
            found.setdefault(table, first + 1)
            continue
        while True:  # a value ends with the first line after which it can be read
            try:
                key = _names(tomllib.loads("\n".join(lines[first:at])))
                break
            except tomllib.TOMLDecodeError:
                if at == len(lines):
                    raise
                at += 1
        for depth in range(1, len(key) + 1):
            found.setdefault((*table, *key[:depth]), first + 1)
    return found


def _names(fields: Any) -> tuple[str, ...]:
    """The dotted key of the one thing that the fields hold. Inside an inline table no key is looked for."""
    names: list[str] = []
    while isinstance(fields, dict) and len(fields) == 1:
        ((name, fields),) = fields.items()
        names.append(name)
    return tuple(names)


def _inside(names: tuple[str, ...], numbers: Counter[Place], *, new: bool) -> Place:
    """The place of a header's table: each list of tables on the way stands for its last one, and a new one is added."""
    place: Place = ()
    for depth, name in enumerate(names, start=1):
        place = (*place, name)
        if new and depth == len(names):
            numbers[place] += 1
        if numbers[place]:
            place = (*place, numbers[place] - 1)
    return place


def line_at(lines: dict[Place, int], place: Place) -> int:
    """The line of a place, or of the nearest table around it that has one: what is missing is missing there."""
    while place not in lines:
        place = place[:-1]
    return lines[place]
