"""Values that other tools wrote, read from a file and checked one by one. Errors name place, field and what was expected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heedful.errors import RecordError

Fields = dict[str, Any]
MOST_SECONDS = 1e12


def text_of(path: Path) -> str:
    """The text of a UTF-8 file. Raises RecordError when there is none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecordError(str(path), f"cannot be read ({error.strerror or error}); check the path") from None
    if b"\0" in raw:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise RecordError(f"{path}:{line}", "holds a NUL character; save the file as UTF-8 text, or take the character out")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecordError(f"{path}:{line}", f"is not UTF-8 ({error.reason}); save the file as UTF-8") from None
    if not text.strip():
        raise RecordError(str(path), "is empty; export it again")
    return text


def json_of(text: str, where: str, *, whole_file: bool = False) -> Any:
    """The value in a JSON text. whole_file: where names a file, and an error adds the line to it. Raises RecordError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_each_key_once)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if whole_file else where
        raise RecordError(place, f"not JSON ({error.msg}, column {error.colno}); export the file again") from None
    except RecursionError:
        raise RecordError(where, "not JSON (nested too deeply); export the file again") from None
    except ValueError as error:  # a number of too many digits, NaN, a key twice
        raise RecordError(where, f"not JSON ({str(error).split(';')[0]}); export the file again") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _each_key_once(pairs: list[tuple[str, Any]]) -> Fields:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return found


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, list):
            waiting += part


def refuse_unstorable(value: Any, where: str) -> None:
    """Raises RecordError for text that neither a UTF-8 file nor a database holds."""
    for text in strings(value):
        if "\0" in text:
            raise RecordError(where, "holds a NUL character, which no database stores as text; take it out")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RecordError(where, "holds half of a surrogate pair, which is no text; mend or drop it") from None


def as_object(value: Any, what: str, where: str) -> Fields:
    if not isinstance(value, dict):
        raise unexpected(value, what, "a JSON object", where)
    return value


def as_list(value: Any, what: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise unexpected(value, what, "a JSON array", where)
    return value


def as_text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise unexpected(value, what, "text", where)
    return value


def as_name(value: Any, what: str, where: str) -> str:
    """Ids may be text or whole numbers in other tools; in records they are text."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise unexpected(value, what, "text or a whole number", where)
    return str(value)


def as_seconds(value: Any, what: str, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST_SECONDS:
        raise unexpected(value, what, "a number of seconds, 0 or more", where)
    return float(value)


def unexpected(value: Any, what: str, expected: str, where: str) -> RecordError:
    """The error that names a field, what was expected and what was found."""
    found = "nothing" if value is None else repr(value)
    short = found if len(found) <= 60 else found[:57] + "..."
    return RecordError(where, f"field '{what}': expected {expected}, found {short}; mend it or drop the record")


def messages(value: Any, what: str, where: str) -> list[Fields]:
    """A conversation from a text, which the user said, or from a list of messages."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise unexpected(value, what, "text, or a list of messages", where)
    return [as_object(message, what, where) for message in value]
