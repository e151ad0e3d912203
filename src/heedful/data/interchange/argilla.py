"""Argilla's records: a line each as its server's HTTP API and its 1.x client have them, which is the shape that carries ranks.

Argilla 2's to_json is read as well. It writes a ranking as a list of names in the order of the question's options and leaves
the ranks out (argilla-io/argilla issue 5712), and its from_json has no place for them either.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from heedful.data.interchange.foreign import (
    Fields,
    as_list,
    as_name,
    as_object,
    as_text,
    json_of,
    messages,
    refuse_unstorable,
    text_of,
)
from heedful.data.interchange.rankings import FLAGGED, NOTE, RANKING, Ranked, Response, orders_differ, ranked, responses
from heedful.data.interchange.sets import (
    INCOMPLETE,
    OURS,
    Asked,
    Group,
    Report,
    Sets,
    add,
    completion,
    groups,
    is_one_question,
    judgement,
    judges_all,
    moment,
    ranks_that_fit,
    to_fields,
    transcript,
)
from heedful.errors import RecordError
from heedful.records import Completion, Judgement, Prompt, parse_fields
from heedful.store import write_text

_PROMPT = ("prompt", "instruction", "question", "input", "text")
_ANSWER = re.compile(r"(?:response|completion|answer|output|generation|reply)(?:[-_ ](\d+|[a-z])|(\d+))", re.IGNORECASE)
_LABELERS = uuid.uuid5(uuid.NAMESPACE_URL, "heedful:labelers")


# Writing


def write(path: Path, sets: Sets) -> Report:
    """A record for each prompt, with the labelers' submitted responses. Raises DataError."""
    report = Report()
    found = groups(sets)
    write_text(path, "".join(json.dumps(_written(group, report), ensure_ascii=False) + "\n" for group in found))
    sizes = Counter(len(group.answers) for group in found if group.judgements)
    if len(sizes) > 1:
        others = sizes.total() - max(sizes.values())
        report.doubt("prompts with another number of answers than most: Argilla asks for one number in a dataset", others)
    return report


def user_id(labeler: str) -> str:
    """Argilla knows users by UUIDs: one that is made of the name, or the name when it is one."""
    try:
        return labeler if str(uuid.UUID(labeler)) == labeler else str(uuid.uuid5(_LABELERS, labeler))
    except ValueError:
        return str(uuid.uuid5(_LABELERS, labeler))


def _written(group: Group, report: Report) -> Fields:
    names = {answer.id: f"response-{number}" for number, answer in enumerate(group.answers, start=1)}
    judged: dict[str, Fields] = {}
    carried: Fields = {}
    for one in group.judgements:
        user = user_id(one.labeler)
        if not judges_all(one, group.answers):
            report.leave_out(INCOMPLETE)
            continue
        if user in judged:
            report.leave_out("judgements that a later one of the same labeler and prompt replaces: Argilla keeps one a user")
        judged[user] = {"user_id": user, "status": "submitted", "values": _values(one, names, group, report)}
        carried[user] = to_fields(one, "prompt_id", "ranks", "flagged", "note")
    ours = {
        "prompt": to_fields(group.prompt, *(["messages"] if is_one_question(group.prompt) else [])),
        "completions": {names[answer.id]: to_fields(answer, "prompt_id", "text") for answer in group.answers},
        "judgements": carried,
    }
    return {
        "external_id": group.prompt.id,
        "fields": {"prompt": transcript(group.prompt)} | {names[answer.id]: answer.text for answer in group.answers},
        "metadata": {OURS: json.dumps(ours, ensure_ascii=False)},
        "responses": list(judged.values()),
    }


def _values(one: Judgement, names: dict[str, str], group: Group, report: Report) -> Fields:
    """Argilla wants a rank for every answer, also for flagged ones: they come after the others, and the flags tell."""
    ranks = ranks_that_fit(one, group.answers, report)
    last = min(max(ranks.values(), default=0) + 1, len(names))
    ranking = [{"value": name, "rank": ranks.get(id_, last)} for id_, name in names.items()]
    values: Fields = {RANKING: {"value": ranking}}
    if one.flagged:
        values[FLAGGED] = {"value": [names[id_] for id_ in one.flagged]}
    if one.note is not None:
        values[NOTE] = {"value": one.note}
    return values


# Reading


class _Row(NamedTuple):
    """One record. answers: the texts of its answers by field. ours: what we carried along."""

    where: str
    prompt: Prompt
    answers: dict[str, str]
    responses: list[Response]
    ours: Fields


def read(path: Path, asked: Asked) -> tuple[Sets, Report]:
    """The records of a file in either shape. Raises RecordError."""
    report = Report()
    rows = [_row(value, where, number) for number, (where, value) in enumerate(_values_in(path), start=1)]
    if not rows:
        raise RecordError(str(path), "holds no record; export it again")
    names = _options(rows)
    rankings = [
        (row, response, ranking)
        for row in rows
        for response in row.responses
        if (ranking := ranked(response, names, asked, report)) is not None
    ]
    plain_counts = orders_differ(ranking.fields for _, _, ranking in rankings if ranking.ranks is None)
    prompts: dict[str, Prompt] = {}
    completions: dict[str, Completion] = {}
    judgements: dict[str, Judgement] = {}
    ids: dict[str, dict[str, str]] = {}
    for row in rows:
        add(prompts, row.prompt, row.where)
        carried = as_object(row.ours.get("completions", {}), f"{OURS}.completions", row.where)
        ids[row.prompt.id] = {}
        for field, text in row.answers.items():
            own = as_object(carried.get(field, {}), f"{OURS}.completions.{field}", row.where)
            fields = {"id": f"{row.prompt.id}/{field}"} | own | {"prompt_id": row.prompt.id, "text": text}
            one = completion(fields, row.where, report)
            add(completions, one, row.where)
            ids[row.prompt.id][field] = one.id
    for row, response, ranking in rankings:
        if ranking.ranks is None and not plain_counts:
            report.leave_out(
                "rankings without ranks, all in one order: Argilla 2's to_json leaves the ranks out; read the records from its "
                "HTTP API (/api/v1/datasets/ID/records?include=responses)"
            )
            continue
        found = _judgement(row, response, ranking, ids[row.prompt.id], asked, report)
        if found is not None:
            add(judgements, found, response.where)
    return Sets(list(prompts.values()), list(completions.values()), list(judgements.values())), report


def _values_in(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, record): of an array, of the server's answer {"items": [...]}, or of one object a line."""
    text = text_of(path)
    try:
        whole = json_of(text, str(path), whole_file=True)
    except RecordError:
        if text.lstrip().startswith("["):
            raise
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"{path}:{number}", json_of(line, f"{path}:{number}")
        return
    if isinstance(whole, dict):
        whole = as_list(whole["items"], "items", str(path)) if "items" in whole and "fields" not in whole else [whole]
    for number, value in enumerate(as_list(whole, "records", str(path)), start=1):
        yield f"{path}: record {number}", value


def _row(value: Any, where: str, number: int) -> _Row:
    record = as_object(value, "record", where)
    refuse_unstorable(record, where)
    fields = as_object(record.get("fields"), "fields", where)
    asked = next((name for name in _PROMPT if name in fields), None)
    if asked is None:
        raise RecordError(
            where, f"field 'fields': expected one of {', '.join(_PROMPT)}, there are: {', '.join(fields)}; rename the prompt"
        )
    metadata = record.get("metadata")
    ours: Fields = {}
    if isinstance(metadata, dict) and OURS in metadata:
        text = as_text(metadata[OURS], f"metadata.{OURS}", where)
        ours = as_object(json_of(text, f"{where}: metadata.{OURS}"), f"metadata.{OURS}", where)
        refuse_unstorable(ours, where)
    id_ = next((record[name] for name in ("external_id", "id") if record.get(name) is not None), f"record-{number}")
    prompt = {"id": as_name(id_, "external_id", where), "messages": messages(fields[asked], f"fields.{asked}", where)}
    return _Row(
        where,
        parse_fields(prompt | as_object(ours.get("prompt", {}), f"{OURS}.prompt", where), Prompt, where),
        {name: text for name, text in fields.items() if _ANSWER.fullmatch(name) and isinstance(text, str)},
        responses(record.get("responses"), where),
        ours,
    )


def _options(rows: list[_Row]) -> dict[str, str]:
    """What a ranking may call a field: by its name, or by the number or letter at its end where only one field has it."""
    fields = dict.fromkeys(name for row in rows for name in row.answers)
    keys: dict[str, list[str]] = {}
    for name in fields:
        match = _ANSWER.fullmatch(name)
        assert match
        keys.setdefault(match[1] or match[2], []).append(name)
    return {key: names[0] for key, names in keys.items() if len(names) == 1} | {name: name for name in fields}


def _judgement(
    row: _Row, response: Response, ranking: Ranked, ids: dict[str, str], asked: Asked, report: Report
) -> Judgement | None:
    order = [field for field in ranking.fields if field in ids]
    if len(order) < len(ranking.fields):  # the options are the same for all records of a dataset
        report.doubt("rankings that also name answers which their record does not have: those are left out")
    if not order or len(order) < len(ids):
        report.leave_out(INCOMPLETE)
        return None
    flagged = [field for field in ranking.flagged if field in ids]
    ranks = ranking.ranks if ranking.ranks is not None else {field: rank for rank, field in enumerate(order, start=1)}
    carried = as_object(row.ours.get("judgements", {}), f"{OURS}.judgements", response.where).get(response.user, {})
    fields: Fields = {"id": f"{row.prompt.id}/{response.user}", "labeler": response.user, "source": "human"}
    fields |= {"criterion": asked.criterion} | as_object(carried, f"{OURS}.judgements", response.where)
    fields |= {
        "prompt_id": row.prompt.id,
        "ranks": {ids[field]: ranks[field] for field in order if field not in flagged},
        "flagged": [ids[field] for field in flagged],
        "note": response.note,
    }
    if "created_at" not in fields:
        fields["created_at"] = moment(response.when, "updated_at", response.where, report)
    return judgement(fields, response.where, report)
