"""Judgements in the formats of other tools, written and read: Label Studio, Argilla, CSV."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from heedful.data.interchange import argilla, label_studio, table
from heedful.data.interchange.sets import Asked, Report, Sets
from heedful.errors import DataError
from heedful.store import named_folder, write_jsonl

__all__ = ["FORMATS", "Asked", "Report", "Sets", "convert", "format_named", "read", "write"]


class Format(NamedTuple):
    """options: the fields of `Asked`, besides the criterion, that its reader takes."""

    read: Callable[[Path, Asked], tuple[Sets, Report]]
    write: Callable[[Path, Sets], Report]
    options: tuple[str, ...]


FORMATS: dict[str, Format] = {
    "label-studio": Format(label_studio.read, label_studio.write, ("question", "buckets")),
    "argilla": Format(argilla.read, argilla.write, ("question",)),
    "csv": Format(table.read, table.write, ()),
}


def format_named(name: str) -> Format:
    """Raises DataError that names the nearest one."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1, cutoff=0.0)[0]
        raise DataError(f"unknown format {name!r}; the nearest known one is {near!r}, all are {', '.join(FORMATS)}")
    return FORMATS[name]


def read(name: str, path: Path, asked: Asked | None = None) -> tuple[Sets, Report]:
    """The records in a file, and what was left out. Raises RecordError and DataError."""
    form, asked = format_named(name), asked or Asked()
    for option in ("question", "buckets"):
        if getattr(asked, option) and option not in form.options:
            raise DataError(f"--{option} says nothing about {name}; leave it out")
    return form.read(path, asked)


def write(name: str, path: Path, sets: Sets) -> Report:
    """Replaces a file atomically; what the format cannot carry is counted. Raises DataError."""
    return format_named(name).write(path, sets)


def convert(name: str, source: Path, folder: Path, asked: Asked | None = None) -> tuple[Sets, Report]:
    """Reads a file and writes prompts.jsonl, completions.jsonl and judgements.jsonl, all of them or none."""
    sets, report = read(name, source, asked)
    with named_folder(folder) as temporary:
        for what, records in sets._asdict().items():
            write_jsonl(temporary / f"{what}.jsonl", records)
    return sets, report
