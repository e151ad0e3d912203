"""Rows of public files, and what every reader of a format needs: fields with errors that name the place, prompts with ids."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from heedful.errors import RecordError
from heedful.records import Message, Prompt, iter_lines, parse_fields, parse_object

Row = dict[str, Any]


class Skip(Exception):  # noqa: N818 - a signal, not an error
    """A row that the format allows but that holds nothing to learn from; the text says why."""


def rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(file:line, object) for each row of a .jsonl, .json, .csv file, packed with gzip or not."""
    name = path.name.removesuffix(".gz")
    opener: Any = gzip.open if path.name.endswith(".gz") else open
    if not name.endswith((".csv", ".json")):
        for where, line in iter_lines(path, opener):
            yield where, parse_object(line, where)
        return
    end = 1  # the line where the row before ended: a quoted field may hold line breaks
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            if name.endswith(".csv"):
                reader = csv.DictReader(file)
                for row in reader:
                    yield f"{path}:{end + 1}", dict(row)
                    end = reader.line_num
            else:
                found = json.load(file)
                if not isinstance(found, list):
                    raise RecordError(str(path), f"expected a JSON array of rows, found {type(found).__name__}; save it as one")
                for number, value in enumerate(found, start=1):
                    yield f"{path}: row {number}", as_object(value, f"{path}: row {number}")
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(str(path), f"cannot be read ({getattr(error, 'strerror', None) or error}); check the path") from None
    except UnicodeDecodeError as error:
        raise RecordError(str(path), f"is not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except csv.Error as error:
        raise RecordError(f"{path}:{end + 1}", f"not a CSV row ({error}); mend or drop the row") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}", f"not JSON ({error.msg}, column {error.colno}); mend the file") from None


def as_object(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise RecordError(where, f"expected a JSON object, found {type(value).__name__}; mend or drop the line")
    return value


def text_in(row: Row, field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        found = "no such field" if field not in row else f"found {type(value).__name__}"
        raise RecordError(where, f"field '{field}': expected text, {found}")
    return value


def prompt_id(messages: Sequence[Message]) -> str:
    """The same for the same conversation, wherever it stands: splits are made by prompt."""
    text = json.dumps([[message.role, message.content] for message in messages], ensure_ascii=False)
    return "p-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def prompt_of(content: str, where: str, **fields: Any) -> Prompt:
    """A prompt of one message of the user; without an id it gets that of its text."""
    messages = (Message(role="user", content=content),)
    fields["id"] = fields.get("id") or prompt_id(messages)
    return parse_fields({"messages": [m.model_dump() for m in messages]} | fields, Prompt, where)
