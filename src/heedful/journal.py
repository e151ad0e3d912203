"""Finished pieces of work, added one by one to a file that a crash leaves readable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from heedful.records import parse_line, to_line
from heedful.store import write_jsonl, writing

R = TypeVar("R", bound=BaseModel)


class Journal:
    """An append-only JSONL file of finished pieces of work; a last line cut by a crash is dropped on opening."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self.kind: type[BaseModel] = kind
        self.records: list[Any] = []
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_bytes() if path.exists() else b""
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text:
                with path.open("r+b") as file:
                    file.truncate(len(whole))
        # Only "\n" ends a record: splitlines would also cut at separators that stand inside a completion.
        for number, line in enumerate(whole.decode().split("\n")[:-1], start=1):
            self.records.append(parse_line(line, kind, f"{path}:{number}"))

    def keep(self, wanted: Callable[[Any], bool]) -> None:
        """Drops the records that are not wanted, on disk as well."""
        kept = [record for record in self.records if wanted(record)]
        if len(kept) != len(self.records):
            self.records = kept
            write_jsonl(self.path, kept)

    def append(self, records: Iterable[BaseModel]) -> None:
        """Adds records and flushes them to disk before returning."""
        batch = list(records)
        with writing(self.path), self.path.open("ab") as file:
            file.write("".join(to_line(record) + "\n" for record in batch).encode())
            file.flush()
            os.fsync(file.fileno())
        self.records += batch
