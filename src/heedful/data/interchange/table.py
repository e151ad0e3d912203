"""A table for spreadsheets, as CSV: a row for each completion that a judgement ranks or flags.

A spreadsheet takes a cell that begins with = + - @, a tab or a line break for a formula. Such a cell is written with an
apostrophe in front, and so is one that begins with apostrophes and then one of these; read, it loses one again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from heedful.data.interchange.foreign import Fields, as_seconds, json_of, messages, text_of, unexpected
from heedful.data.interchange.sets import (
    Asked,
    Group,
    Report,
    Sets,
    add,
    completion,
    groups,
    is_one_question,
    judges_all,
    moment,
    to_fields,
)
from heedful.errors import RecordError
from heedful.records import Completion, Judgement, Prompt, parse_fields
from heedful.store import write_text

NEEDED = ("prompt_id", "prompt", "completion_id", "completion", "labeler", "rank")
COLUMNS = (*NEEDED[:4], "model", "labeler", "rank", "flagged", "criterion", "seconds", "created_at", "note", "source")
_OF_JUDGEMENT = ("labeler", "rank", "flagged", "criterion", "seconds", "created_at", "note")
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_MESSAGES = re.compile(r'\[\s*\{\s*"(?:role|content)"\s*:')
_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")
_RANK = re.compile(r"[1-9][0-9]{0,8}")
Cells = dict[str, str]


# Writing


def write(path: Path, sets: Sets) -> Report:
    """The table. What it has no column for is counted in the report. Raises DataError."""
    report = Report()
    text = io.StringIO(newline="")
    table = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerow(COLUMNS)
    for group in groups(sets):
        if not group.answers:
            report.leave_out("prompts without completions")
        for cells in _rows(group, report):
            table.writerow([guarded(cells.get(column, "")) for column in COLUMNS])
    _count_what_has_no_column(sets, report)
    write_text(path, text.getvalue())
    return report


def guarded(cell: str) -> str:
    """The cell so that no spreadsheet takes it for a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """The cell as it was before `guarded`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _rows(group: Group, report: Report) -> Iterator[Cells]:
    """Of judgements in their order; completions that nobody judged follow, with nothing in the judgement's columns."""
    unjudged = {answer.id: answer for answer in group.answers}
    written = set()
    for one in group.judgements:
        key = (one.labeler, one.criterion, one.created_at)
        if not one.ranks and not one.flagged:
            report.leave_out("judgements that rank nothing")
            continue
        if key in written:
            report.leave_out("judgements with the prompt, labeler, criterion and time of another")
            continue
        written.add(key)
        for answer in group.answers:
            if answer.id in one.ranks or answer.id in one.flagged:
                unjudged.pop(answer.id, None)
                yield _common(group.prompt, answer) | {
                    "labeler": one.labeler,
                    "rank": str(one.ranks.get(answer.id, "")),
                    "flagged": str(int(answer.id in one.flagged)),
                    "criterion": one.criterion,
                    "seconds": "" if one.seconds is None else repr(one.seconds),
                    "created_at": one.created_at,
                    "note": one.note or "",
                    "source": one.source,
                }
    for answer in unjudged.values():
        yield _common(group.prompt, answer)


def _common(prompt: Prompt, answer: Completion) -> Cells:
    asked = prompt.messages[0].content
    if not is_one_question(prompt) or _MESSAGES.match(asked):
        asked = json.dumps([message.model_dump() for message in prompt.messages], ensure_ascii=False)
    return {
        "prompt_id": prompt.id,
        "prompt": asked,
        "completion_id": answer.id,
        "completion": answer.text,
        "model": answer.model,
    }


def _count_what_has_no_column(sets: Sets, report: Report) -> None:
    has_column: dict[str, tuple[Sequence[BaseModel], tuple[str, ...]]] = {
        "prompts": (sets.prompts, ("id", "messages")),
        "completions": (sets.completions, ("id", "prompt_id", "text", "model")),
        "judgements": (sets.judgements, ("prompt_id", "ranks", "source", *_OF_JUDGEMENT)),
    }
    for what, (records, columns) in has_column.items():
        for record in records:
            for name, value in to_fields(record, *columns).items():
                if value not in ([], {}, None):
                    report.leave_out(f"{name} of {what}, for which the table has no column")


# Reading


@dataclass
class _Judged:
    """A judgement as its rows come. shared: what all of them say, "" where none does."""

    where: str
    prompt_id: str
    labeler: str
    criterion: str
    created_at: str
    shared: Cells
    ranks: dict[str, int] = field(default_factory=dict)
    flagged: list[str] = field(default_factory=list)


def read(path: Path, asked: Asked) -> tuple[Sets, Report]:
    """The records of a table. Rows of one prompt, labeler, criterion and time are one judgement. Raises RecordError."""
    report = Report()
    prompts: dict[str, Prompt] = {}
    completions: dict[str, Completion] = {}
    drawn: dict[str, Cells] = {}
    judged: dict[tuple[str, ...], _Judged] = {}
    for where, cells in _cells(path, report):
        prompt = _prompt(cells, where)
        if prompts.setdefault(prompt.id, prompt) != prompt:
            raise RecordError(where, f"prompt {prompt.id!r} has another text than in a row above; make them the same")
        id_ = cells["completion_id"]
        said = {name: cells.get(name, "") for name in ("prompt_id", "completion", "model")}
        if drawn.get(id_, said) != said:
            raise RecordError(where, f"completion {id_!r} has another prompt, text or model in a row above; make them the same")
        if id_ not in drawn:
            drawn[id_] = said
            fields: Fields = {"id": id_, "prompt_id": prompt.id, "text": cells["completion"]}
            add(completions, completion(fields | ({"model": said["model"]} if said["model"] else {}), where, report), where)
        _judge(judged, prompt.id, id_, cells, asked, where)
    if not prompts:
        raise RecordError(str(path), "holds no row below the names of the columns; export it again")
    judgements: dict[str, Judgement] = {}
    of: dict[str, list[Completion]] = {}
    for one in completions.values():
        of.setdefault(one.prompt_id, []).append(one)
    for rows in judged.values():
        judgement = _judgement(rows, report)
        if not judges_all(judgement, of[judgement.prompt_id]):
            report.doubt("judgements that leave out an answer of their prompt")
        add(judgements, judgement, rows.where)
    return Sets(list(prompts.values()), list(completions.values()), list(judgements.values())), report


def _cells(path: Path, report: Report) -> Iterator[tuple[str, Cells]]:
    """(file:line, cells by column) for each row that is not blank."""
    text = text_of(path)
    limit = csv.field_size_limit(len(text) + 1)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    end = 0
    try:
        header = next(reader, [])
        _check_header(header, f"{path}:1", report)
        end = reader.line_num
        for row in reader:
            where = f"{path}:{end + 1}"
            end = reader.line_num
            if not any(row):
                continue
            if len(row) != len(header):
                raise RecordError(where, f"expected {len(header)} cells as in the first row, found {len(row)}; mend the row")
            yield where, {name: unguarded(cell) for name, cell in zip(header, row, strict=True)}
    except csv.Error as error:
        raise RecordError(f"{path}:{end + 1}", f"not a CSV row ({error}); mend or drop the row") from None
    finally:
        csv.field_size_limit(limit)


def _check_header(header: list[str], where: str, report: Report) -> None:
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise RecordError(
            where,
            f"there is no column {missing[0]!r}; expected columns divided by commas, among them {', '.join(NEEDED)}, found: "
            f"{', '.join(header) or 'none'}",
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise RecordError(where, f"column {repeated[0]!r} occurs twice; drop one of the two")
    for name in header:
        if name not in COLUMNS:
            report.leave_out(f"column {name!r}, which is none of ours")


def _prompt(cells: Cells, where: str) -> Prompt:
    for name in ("prompt_id", "completion_id"):
        if not cells[name]:
            raise unexpected(None, name, "an id", where)
    asked = cells["prompt"]
    said = json_of(asked, f"{where}: prompt") if _MESSAGES.match(asked) else asked
    return parse_fields({"id": cells["prompt_id"], "messages": messages(said, "prompt", where)}, Prompt, where)


def _judge(judged: dict[tuple[str, ...], _Judged], prompt_id: str, id_: str, cells: Cells, asked: Asked, where: str) -> None:
    """Adds one row to its judgement."""
    is_flagged = _flag(cells.get("flagged", ""), where)
    if not cells["labeler"]:
        said = [name for name in _OF_JUDGEMENT if cells.get(name) and (name != "flagged" or is_flagged)]
        if said:
            raise RecordError(where, f"field '{said[0]}' is filled and 'labeler' is empty; say whose judgement it is")
        return
    criterion, created_at = cells.get("criterion") or asked.criterion, cells.get("created_at", "")
    key = (prompt_id, cells["labeler"], criterion, created_at)
    shared = {name: cells.get(name, "") for name in ("seconds", "note", "source")}
    rows = judged.setdefault(key, _Judged(where, *key, shared))
    for name, value in shared.items():
        if value and rows.shared[name] and value != rows.shared[name]:
            raise RecordError(
                where, f"field '{name}': found {value!r}, and {rows.shared[name]!r} in a row above of this judgement; mend one"
            )
        rows.shared[name] = rows.shared[name] or value
    if id_ in rows.ranks or id_ in rows.flagged:
        raise RecordError(where, f"labeler {cells['labeler']!r} judges completion {id_!r} twice; keep one of the rows")
    if is_flagged and cells["rank"]:
        raise unexpected(cells["rank"], "rank", "nothing, as the completion is flagged", where)
    if is_flagged:
        rows.flagged.append(id_)
    elif _RANK.fullmatch(cells["rank"]):
        rows.ranks[id_] = int(cells["rank"])
    else:
        raise unexpected(cells["rank"] or None, "rank", "a whole number, 1 or more, or 1 in flagged", where)


def _flag(cell: str, where: str) -> bool:
    if cell.lower() not in (*_TRUE, *_FALSE):
        raise unexpected(cell, "flagged", "0 or 1", where)
    return cell.lower() in _TRUE


def _judgement(rows: _Judged, report: Report) -> Judgement:
    """Its id is made of what tells it from others, so that reading again gives the same."""
    key = json.dumps([rows.prompt_id, rows.labeler, rows.criterion, rows.created_at], ensure_ascii=False)
    source = rows.shared["source"] or "human"
    if source not in ("human", "ai", "simulated"):
        raise unexpected(source, "source", "human, ai or simulated", rows.where)
    fields = {
        "id": "j-" + hashlib.sha256(key.encode()).hexdigest()[:16],
        "prompt_id": rows.prompt_id,
        "labeler": rows.labeler,
        "source": source,
        "criterion": rows.criterion,
        "ranks": rows.ranks,
        "flagged": rows.flagged,
        "seconds": _seconds(rows.shared["seconds"], rows.where),
        "created_at": moment(rows.created_at or None, "created_at", rows.where, report),
        "note": rows.shared["note"] or None,
    }
    return parse_fields(fields, Judgement, rows.where)


def _seconds(cell: str, where: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        raise unexpected(cell, "seconds", "a number, with a point and not a comma", where) from None
    return as_seconds(value, "seconds", where)
