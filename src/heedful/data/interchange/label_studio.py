"""Label Studio's JSON with a List and a Ranker. Written, ranks and flags are buckets, so that ties have a place.

Facts from Label Studio's serializers (tasks/serializers.py); what a Ranker stores stands in ranker.py.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from heedful.data.interchange.foreign import (
    Fields,
    as_list,
    as_name,
    as_object,
    as_seconds,
    as_text,
    json_of,
    messages,
    refuse_unstorable,
    text_of,
    unexpected,
)
from heedful.data.interchange.ranker import FLAGGED, LEFT, answer_of
from heedful.data.interchange.sets import (
    INCOMPLETE,
    OURS,
    Asked,
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

RANKER, NOTE = "rank", "note"


# Writing


def write(path: Path, sets: Sets) -> Report:
    """Tasks with annotations, and beside them the labelling interface that shows them. Raises DataError."""
    report = Report()
    tasks = []
    numbers = count(1)
    most_answers = 1
    for number, (prompt, answers, judgements) in enumerate(groups(sets), start=1):
        most_answers = max(most_answers, len(answers))
        annotations = []
        for one in judgements:
            if judges_all(one, answers):
                annotations.append(_annotation(one, ranks_that_fit(one, answers, report), next(numbers)))
            else:
                report.leave_out(INCOMPLETE)
        tasks.append({"id": number, "data": _data(prompt, answers), "annotations": annotations})
    write_text(path, json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
    write_text(interface_beside(path), interface(most_answers))
    return report


def interface_beside(path: Path) -> Path:
    """Where the labelling interface goes."""
    return path.with_name(path.name + ".interface.xml")


def interface(num_ranks: int) -> str:
    """What goes into Label Studio's Settings, Labeling Interface, Code."""
    titles = ["1, best", *map(str, range(2, num_ranks + 1))]
    buckets = "".join(f'    <Bucket name="{rank}" title="{title}" />\n' for rank, title in enumerate(titles, start=1))
    return (
        '<View>\n  <Text name="prompt" value="$prompt" />\n  <List name="results" value="$items" title="Answers" />\n'
        f'  <Ranker name="{RANKER}" toName="results">\n{buckets}    <Bucket name="{FLAGGED[0]}" title="Flagged" />\n'
        f'  </Ranker>\n  <TextArea name="{NOTE}" toName="prompt" placeholder="Note" />\n</View>\n'
    )


def _data(prompt: Prompt, answers: list[Completion]) -> Fields:
    """The editor shows an item's id, title, body and html to the labelers, and no other field of it."""
    carried = {
        "prompt": to_fields(prompt, *(["messages"] if is_one_question(prompt) else [])),
        "completions": {answer.id: to_fields(answer, "id", "prompt_id", "text") for answer in answers},
    }
    items = [{"id": answer.id, "body": answer.text} for answer in answers]
    return {"prompt": transcript(prompt), "items": items, OURS: carried}


def _annotation(one: Judgement, ranks: dict[str, int], number: int) -> Fields:
    buckets: dict[str, list[str]] = {LEFT: []}
    for rank in sorted(set(ranks.values())):
        buckets[str(rank)] = [id_ for id_ in ranks if ranks[id_] == rank]
    buckets[FLAGGED[0]] = list(one.flagged)
    has_place = ("prompt_id", "labeler", "ranks", "flagged", "seconds", "created_at", "note")
    result: list[Fields] = [
        {
            "id": f"rank-{number}",
            "from_name": RANKER,
            "to_name": "results",
            "type": "ranker",
            "value": {"ranker": buckets},
            "meta": {OURS: to_fields(one, *has_place)},
        }
    ]
    if one.note is not None:
        region = {"id": f"note-{number}", "from_name": NOTE, "to_name": "prompt", "type": "textarea"}
        result.append({**region, "value": {"text": [one.note]}})
    return {
        "id": number,
        "completed_by": {"email": one.labeler},
        "created_at": one.created_at,
        "lead_time": one.seconds,
        "was_cancelled": False,
        "ground_truth": False,
        "result": result,
    }


# Reading


class _Task(NamedTuple):
    """items: fields of a completion, under the task's own ids of them and in its order."""

    where: str
    prompt: Prompt
    items: dict[str, Fields]
    annotations: list[Any]
    num_drafts: int


def read(path: Path, asked: Asked) -> tuple[Sets, Report]:
    """The records of an export. Item ids that occur in several tasks get their prompt's id in front. Raises RecordError."""
    value = json_of(text_of(path), str(path), whole_file=True)
    if not isinstance(value, list) or not value:
        found = "an empty one" if value == [] else type(value).__name__
        raise RecordError(str(path), f"expected a JSON array of tasks, found {found}; export from Label Studio as JSON")
    tasks = [_task(task, number, f"{path}: task {number}") for number, task in enumerate(value, start=1)]
    repeated = max(Counter(id_ for task in tasks for id_ in task.items).values(), default=1) > 1
    report = Report()
    prompts: dict[str, Prompt] = {}
    completions: dict[str, Completion] = {}
    judgements: dict[str, Judgement] = {}
    for task in tasks:
        add(prompts, task.prompt, task.where)
        names = {id_: f"{task.prompt.id}/{id_}" if repeated else id_ for id_ in task.items}
        for id_, item in task.items.items():
            fields = item | {"id": names[id_], "prompt_id": task.prompt.id}
            add(completions, completion(fields, task.where, report), task.where)
        for number, annotation in enumerate(task.annotations, start=1):
            where = f"{task.where}, annotation {number}"
            fields = as_object(annotation, "annotation", where)
            if fields.get("id") is None:
                fields = fields | {"id": f"{task.prompt.id}/{number}"}
            one = _judgement(fields, task, names, asked, report, where)
            if one is not None:
                add(judgements, one, where)
        if task.num_drafts:
            report.leave_out("drafts", task.num_drafts)
    return Sets(list(prompts.values()), list(completions.values()), list(judgements.values())), report


def _task(value: Any, number: int, where: str) -> _Task:
    task = as_object(value, "task", where)
    refuse_unstorable(task, where)
    if "data" not in task:
        raise RecordError(where, "there is no field 'data'; export from Label Studio as JSON, not as JSON-MIN")
    data = as_object(task["data"], "data", where)
    missing = [name for name in ("prompt", "items") if name not in data]
    if missing:
        raise RecordError(
            where,
            f"field 'data': there is no {missing[0]!r}, there are: {', '.join(data) or 'none'}; rename what holds the prompt "
            "to prompt, and the list of answers to items",
        )
    ours = as_object(data.get(OURS, {}), f"data.{OURS}", where)
    carried = as_object(ours.get("prompt", {}), f"data.{OURS}.prompt", where)
    id_ = f"task-{number}" if task.get("id") is None else f"task-{as_name(task['id'], 'id', where)}"
    fields = {"id": id_, "messages": messages(data["prompt"], "data.prompt", where)} | carried
    drafts = task.get("drafts")
    return _Task(
        where,
        parse_fields(fields, Prompt, where),
        _items(data["items"], as_object(ours.get("completions", {}), f"data.{OURS}.completions", where), where),
        as_list(task.get("annotations", []), "annotations", where),
        len(drafts) if isinstance(drafts, list) else 0,
    )


def _items(value: Any, carried: Fields, where: str) -> dict[str, Fields]:
    items: dict[str, Fields] = {}
    for number, item in enumerate(as_list(value, "data.items", where)):
        what = f"data.items[{number}]"
        fields = as_object(item, what, where)
        id_ = as_name(fields.get("id"), f"{what}.id", where)
        if id_ in items:
            raise RecordError(where, f"field '{what}.id': {id_!r} was already used in this task; ids must be unique")
        text = next((fields[name] for name in ("body", "html", "title") if isinstance(fields.get(name), str)), None)
        if text is None:
            raise unexpected(fields.get("body"), f"{what}.body", "the answer's text", where)
        items[id_] = as_object(carried.get(id_, {}), f"data.{OURS}.completions.{id_}", where) | {"text": text}
    return items


def _judgement(
    annotation: Fields, task: _Task, names: dict[str, str], asked: Asked, report: Report, where: str
) -> Judgement | None:
    """The judgement in an annotation; None, with its reason counted, where there is none."""
    if annotation.get("was_cancelled"):
        report.leave_out("skipped tasks (was_cancelled)")
        return None
    results = [as_object(one, "result", where) for one in as_list(annotation.get("result"), "result", where)]
    rankers = [one for one in results if one.get("type") == "ranker" and asked.question in (None, one.get("from_name"))]
    if not rankers:
        report.leave_out("annotations without a ranking")
        return None
    if len(rankers) > 1:
        found = ", ".join(sorted({str(one.get("from_name")) for one in rankers}))
        raise RecordError(where, f"holds several rankings ({found}); choose one with --question")
    answer = answer_of(rankers[0], list(task.items), asked, where)
    if answer is None:
        report.leave_out("annotations with items that nobody put into a bucket")
        return None
    if answer.untouched:
        report.doubt("rankings that equal the order in which the items were shown: perhaps nobody touched them")
    meta = rankers[0].get("meta")
    carried = as_object(meta.get(OURS, {}) if isinstance(meta, dict) else {}, f"result.meta.{OURS}", where)
    fields: Fields = {"id": f"annotation-{as_name(annotation['id'], 'id', where)}", "source": "human"}
    fields |= {"criterion": asked.criterion} | carried
    fields |= {
        "prompt_id": task.prompt.id,
        "labeler": _labeler(annotation.get("completed_by"), where),
        "ranks": {names[item]: rank for item, rank in answer.ranks.items()},
        "flagged": [names[item] for item in answer.flagged],
        "seconds": as_seconds(annotation.get("lead_time"), "lead_time", where),
        "created_at": moment(annotation.get("created_at"), "created_at", where, report),
        "note": _note(results, where),
    }
    return judgement(fields, where, report)


def _labeler(value: Any, where: str) -> str:
    """A user's number, or the user as an object: the e-mail then, where there is one."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return as_name(value, "completed_by", where)


def _note(results: list[Fields], where: str) -> str | None:
    lines = []
    for one in results:
        if one.get("type") == "textarea":
            text = as_object(one.get("value"), "value", where).get("text")
            lines += [as_text(line, "value.text", where) for line in (text if isinstance(text, list) else [text])]
    return "\n".join(lines) if lines else None
