"""Files in the shape of each tool: what is read from them, what is left out and counted, and each bad place by its name."""

from __future__ import annotations

import contextlib
import csv
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from heedful.cli.app import app
from heedful.data import interchange
from heedful.data.interchange import Asked, Sets
from heedful.errors import DataError, RecordError
from heedful.records import Message, Prompt


def asks(id_: str) -> Prompt:
    return Prompt(id=id_, messages=(Message(role="user", content="Why?"),))


# ---- Label Studio's files


def task(ranker: Any, *, number: int = 41, ids: Sequence[Any] = ("a", "b", "c"), **annotation: Any) -> dict[str, Any]:
    """As Label Studio 1.x exports it, with the fields that nobody needs here cut down."""
    result = {
        "id": "x1",
        "from_name": "rank",
        "to_name": "results",
        "type": "ranker",
        "origin": "manual",
        "value": {"ranker": ranker},
    }
    return {
        "id": number,
        "data": {"prompt": "Why?", "items": [{"id": id_, "title": "Answer", "body": f"Because {id_}."} for id_ in ids]},
        "annotations": [
            {
                "id": number * 10,
                "completed_by": 5,
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": "2024-03-09T22:16:08.728353Z",
                "lead_time": 14.21,
                "result": [result],
                "unique_id": "5bd6c6a5",
            }
            | annotation
        ],
        "drafts": [],
        "predictions": [],
        "project": 3,
        "inner_id": 1,
    }


def labelled(path: Path, *tasks: Any, **asked: Any) -> tuple[Sets, interchange.Report]:
    path.joinpath("export.json").write_text(json.dumps(list(tasks)), encoding="utf-8")
    return interchange.read("label-studio", path / "export.json", Asked(**asked))


@pytest.mark.parametrize(
    ("ranker", "ranks", "flagged"),
    [
        (["b", "c", "a"], {"b": 1, "c": 2, "a": 3}, ()),
        ({"rank": ["b", "c", "a"]}, {"b": 1, "c": 2, "a": 3}, ()),
        ({"_": [], "1": ["c"], "2": ["a", "b"], "flagged": []}, {"c": 1, "a": 2, "b": 2}, ()),
        ({"2": ["a"], "10": ["b"], "1": ["c"]}, {"c": 1, "a": 2, "b": 10}, ()),
        ({"_": [], "1": ["c"], "flagged": ["a"], "Nonsense": ["b"]}, {"c": 1}, ("a", "b")),
        ({"_": [], "1": ["a", "b", "c"]}, {"a": 1, "b": 1, "c": 1}, ()),
    ],
)
def test_what_a_ranker_says(ranker: Any, ranks: dict[str, int], flagged: tuple[str, ...], tmp_path: Path) -> None:
    sets, report = labelled(tmp_path, task(ranker), criterion="honesty")
    (one,) = sets.judgements
    assert (one.ranks, one.flagged) == (ranks, flagged)
    assert (one.labeler, one.seconds, one.source, one.criterion) == ("5", 14.21, "human", "honesty")
    assert (one.id, one.created_at, one.prompt_id) == ("annotation-410", "2024-03-09T22:16:08.728353Z", "task-41")
    assert [(c.id, c.text, c.model) for c in sets.completions] == [(i, f"Because {i}.", "unknown") for i in "abc"]
    assert sets.completions[0].model_extra == {"assumed": ["model", "finish", "sampling"]}
    assert sets.prompts == [asks("task-41")]
    assert report.left_out == {}
    assert list(report.doubts.values()) == [3]


@pytest.mark.parametrize(
    ("ids", "ranker", "doubted"),
    [
        (["a", "b", "c"], ["a", "b", "c"], True),
        (["a", "b", "c"], {"rank": ["a", "b", "c"]}, True),
        ([2, 10, 1], ["1", "2", "10"], True),  # the editor lists whole numbers first and by size
        (["b", 2, 1], ["1", "2", "b"], True),
        ([2, 10, 1], ["2", "10", "1"], True),  # the task's own order
        (["02", "01"], ["01", "02"], False),  # those are no whole numbers to JavaScript
        ([2, 10, 1], ["10", "1", "2"], False),
        (["a", "b", "c"], {"1": ["a", "b", "c"], "2": [], "3": []}, True),  # bucket 1 may be the default one
        ([10, "b", 2], {"1": ["2", "10", "b"], "2": [], "3": [], "4": [], "flagged": []}, True),
        (["a", "b", "c"], {"_": [], "1": ["a", "b", "c"]}, False),  # with "_" there is no default bucket
        (["a"], ["a"], False),
    ],
)
def test_an_order_that_is_also_the_untouched_one_is_kept_and_counted(
    ids: list[Any], ranker: Any, doubted: bool, tmp_path: Path
) -> None:
    sets, report = labelled(tmp_path, task(ranker, ids=ids))
    assert len(sets.judgements) == 1
    reason = "rankings that equal the order in which the items were shown: perhaps nobody touched them"
    assert (report.doubts.get(reason, 0) == 1) is doubted


def test_what_does_not_count_is_left_out_and_counted(tmp_path: Path) -> None:
    unranked = task(["b", "a", "c"], number=7) | {"drafts": [{"id": 1}, {"id": 2}]}
    unranked["annotations"][0]["result"] = []
    sets, report = labelled(
        tmp_path,
        task(["b", "a", "c"], number=1, was_cancelled=True),
        task({"_": ["a", "b", "c"], "1": []}, number=2),
        task({"_": ["a"], "1": ["b", "c"]}, number=3),
        task({"1": ["b", "c"]}, number=4),
        task(["b", "a"], number=5),
        task(["b", "a", "c"], number=6, completed_by={"id": 9, "email": "eve@example.org", "first_name": "", "last_name": ""}),
        unranked,
    )
    assert report.left_out == {
        "skipped tasks (was_cancelled)": 1,
        "annotations with items that nobody put into a bucket": 4,
        "annotations without a ranking": 1,
        "drafts": 2,
    }
    assert [(one.labeler, one.prompt_id) for one in sets.judgements] == [("eve@example.org", "task-6")]
    assert len(sets.prompts) == 7, "prompts come along without judgements"


def test_ids_that_several_tasks_use_become_unique(tmp_path: Path) -> None:
    sets, _ = labelled(tmp_path, task(["2", "1"], number=1, ids=[1, 2]), task(["1", "2"], number=2, ids=[1, 2]))
    assert [c.id for c in sets.completions] == ["task-1/1", "task-1/2", "task-2/1", "task-2/2"]
    assert [one.ranks for one in sets.judgements] == [{"task-1/2": 1, "task-1/1": 2}, {"task-2/1": 1, "task-2/2": 2}]
    sets, _ = labelled(tmp_path, task(["2", "1"], number=1, ids=[1, 2]), task(["3", "4"], number=2, ids=[3, 4]))
    assert [c.id for c in sets.completions] == ["1", "2", "3", "4"]


def test_buckets_without_numbers_need_their_order(tmp_path: Path) -> None:
    # As PostgreSQL gives it back: short names first, which is not best first.
    named = task({"_": [], "bad": ["a"], "best": ["b"], "good": ["c"], "flagged": []})
    with pytest.raises(RecordError, match=r"task 1, annotation 1: bucket 'bad' says no rank; .*--buckets bad,best,good$"):
        labelled(tmp_path, named)
    sets, _ = labelled(tmp_path, named, buckets=("best", "good", "bad"))
    assert sets.judgements[0].ranks == {"b": 1, "c": 2, "a": 3}
    with pytest.raises(RecordError, match="bucket 'good' says no rank"):
        labelled(tmp_path, named, buckets=("best", "bad"))
    with pytest.raises(RecordError, match=r"bucket '3' says no rank; .*--buckets best,bad$"):
        labelled(tmp_path, task({"best": ["a"], "bad": ["b"], "3": ["c"]}), buckets=("best", "bad"))


def test_notes_and_one_of_several_rankings(tmp_path: Path) -> None:
    both = task(["b", "a", "c"])
    results = both["annotations"][0]["result"]
    results.append({"from_name": "other", "to_name": "results", "type": "ranker", "value": {"ranker": ["c", "a", "b"]}})
    results.append({"from_name": "why", "to_name": "prompt", "type": "textarea", "value": {"text": ["b is kind", "c is not"]}})
    with pytest.raises(RecordError, match=r"holds several rankings \(other, rank\); choose one with --question"):
        labelled(tmp_path, both)
    sets, _ = labelled(tmp_path, both, question="other")
    assert sets.judgements[0].ranks == {"c": 1, "a": 2, "b": 3}
    assert sets.judgements[0].note == "b is kind\nc is not"
    assert labelled(tmp_path, both, question="third")[1].left_out == {"annotations without a ranking": 1}


def changed(value: Any, *path: Any, to: Any) -> Any:
    """A copy with one place changed; ... takes it out."""
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return copy


GOOD = task(["b", "a", "c"])


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("data",), ..., r"task 1: there is no field 'data'; export from Label Studio as JSON, not as JSON-MIN"),
        (("data", "items"), ..., r"task 1: field 'data': there is no 'items', there are: prompt; rename"),
        (("data", "items"), "a", r"field 'data.items': expected a JSON array, found 'a'"),
        (("data", "items", 1), "b", r"field 'data.items\[1\]': expected a JSON object, found 'b'"),
        (("data", "items", 1, "id"), ..., r"field 'data.items\[1\].id': expected text or a whole number, found nothing"),
        (("data", "items", 1, "id"), True, r"field 'data.items\[1\].id'"),
        (("data", "items", 1, "id"), "a", r"field 'data.items\[1\].id': 'a' was already used"),
        (("data", "items", 1), {"id": "b"}, r"field 'data.items\[1\].body': expected the answer's text, found nothing"),
        (("data", "prompt"), 5, r"field 'data.prompt': expected text, or a list of messages, found 5"),
        (("data", "prompt"), "a\0b", r"task 1: holds a NUL character"),
        (("data", "prompt"), [{"role": "critic", "content": "a"}], r"task 1: Prompt field 'messages.0.role'"),
        (("annotations",), {}, r"field 'annotations': expected a JSON array, found {}"),
        (("annotations", 0), 5, r"annotation 1: field 'annotation': expected a JSON object"),
        (("annotations", 0, "result"), ..., r"annotation 1: field 'result': expected a JSON array, found nothing"),
        (("annotations", 0, "completed_by"), ..., r"field 'completed_by'"),
        (("annotations", 0, "lead_time"), -1, r"field 'lead_time': expected a number of seconds, 0 or more, found -1"),
        (("annotations", 0, "lead_time"), "long", r"field 'lead_time'"),
        (("annotations", 0, "created_at"), 5, r"field 'created_at': expected text, found 5"),
        (("annotations", 0, "result", 0, "value"), {"items": []}, r"field 'value.ranker': expected an array .* found nothing"),
        (("annotations", 0, "result", 0, "value", "ranker"), "b", r"field 'value.ranker'"),
        (("annotations", 0, "result", 0, "value", "ranker"), ["b", "a", "z"], r"ranks item 'z', which the task does not hold"),
        (("annotations", 0, "result", 0, "value", "ranker"), ["b", "a", "a"], r"annotation 1: ranks item 'a' twice"),
        (("annotations", 0, "result", 0, "value", "ranker"), {"1": ["b", "a"], "2": ["a"]}, r"ranks item 'a' twice"),
        (("annotations", 0, "result", 0, "value", "ranker"), {"1": "b"}, r"field 'value.ranker.1': expected a JSON array"),
        (("annotations", 0, "result", 0, "value", "ranker"), {"0": ["a", "b", "c"]}, r"bucket '0' says no rank"),
        (("annotations", 0, "result", 0, "value", "ranker"), ["b", None, "a"], r"found nothing"),
    ],
)
def test_a_wrong_task_is_named(path: tuple[Any, ...], to: Any, said: str, tmp_path: Path) -> None:
    assert len(labelled(tmp_path, GOOD)[0].judgements) == 1
    with pytest.raises(RecordError, match=said) as raised:
        labelled(tmp_path, changed(GOOD, *path, to=to))
    assert raised.value.where.startswith(f"{tmp_path / 'export.json'}: task 1")


def test_two_tasks_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"task 2: Prompt id 'task-41' was already used"):
        labelled(tmp_path, GOOD, GOOD)


# ---- Argilla's files

ANN, BOB = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


def response(user: str | None, *ranks: int | None, status: str | None = "submitted", **answers: Any) -> dict[str, Any]:
    ranking = [{"value": f"response-{number}", "rank": rank} for number, rank in enumerate(ranks, start=1)]
    values = {"ranking": {"value": ranking}} | {name: {"value": value} for name, value in answers.items()}
    return {"user_id": user, "status": status, "values": values}


def record(*responses: Any, **more: Any) -> dict[str, Any]:
    """As the 1.x client keeps it."""
    fields = {"prompt": "Why?", "response-1": "So.", "response-2": "Because.", "context": "none"}
    return {"fields": fields, "metadata": {"source": "web"}, "responses": list(responses), "external_id": "q1"} | more


def argilla_file(folder: Path, text: str) -> Path:
    path = folder / "records.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def lines(*records: Any) -> str:
    return "".join(json.dumps(one) + "\n" for one in records)


def answered(folder: Path, *records: Any, **asked: Any) -> tuple[Sets, interchange.Report]:
    return interchange.read("argilla", argilla_file(folder, lines(*records)), Asked(**asked))


def test_records_of_the_server_and_of_1x(tmp_path: Path) -> None:
    first = record(
        response(ANN, 2, 1, note="why not", flagged=[]),
        response(BOB, 1, 1, flagged=["response-2"]) | {"inserted_at": "2024-01-02T03:04", "updated_at": "2024-02-02T03:04"},
        response(str(uuid.UUID(int=3)), 2, 1, status="draft"),
        {"user_id": str(uuid.UUID(int=4)), "status": "discarded", "values": None},
        {"user_id": str(uuid.UUID(int=5)), "status": "submitted", "values": {"note": {"value": "no opinion"}}},
    )
    unnamed = record(response(ANN, 1, 2), external_id=None, id=str(uuid.UUID(int=9)))
    text = lines(first, unnamed)
    for shape in (text, json.dumps([first, unnamed]), json.dumps({"items": [first, unnamed], "total": 2}, indent=2)):
        sets, report = interchange.read("argilla", argilla_file(tmp_path, shape))
        assert [one.id for one in sets.prompts] == ["q1", str(uuid.UUID(int=9))]
        assert [(c.id, c.text) for c in sets.completions][:2] == [("q1/response-1", "So."), ("q1/response-2", "Because.")]
        ann, bob, other = sets.judgements
        assert (ann.labeler, ann.ranks, ann.flagged) == (ANN, {"q1/response-1": 2, "q1/response-2": 1}, ())
        assert (ann.note, ann.created_at, ann.criterion) == ("why not", "", "helpfulness")
        assert (bob.ranks, bob.flagged, bob.created_at) == ({"q1/response-1": 1}, ("q1/response-2",), "2024-02-02T03:04")
        assert other.ranks == {f"{uuid.UUID(int=9)}/response-1": 1, f"{uuid.UUID(int=9)}/response-2": 2}
        assert report.left_out == {
            "responses with status draft": 1,
            "responses with status discarded": 1,
            "responses without a ranking (a question of another name: --question)": 1,
        }
        assert report.doubts["judgements without a time: created_at is empty"] == 2


def of_2x(number: int, *rankings: list[str], status: str | None = None, **more: Any) -> dict[str, Any]:
    """As the client of Argilla 2 writes it to JSON."""
    given = [{"value": value, "user_id": user} for value, user in zip(rankings, (ANN, BOB), strict=False)]
    if status:
        given = [one | {"status": status} for one in given]
    fields = {"prompt": "Why?", "response-1": "So.", "response-2": "Because.", "response-3": "No."}
    return {
        "id": f"r{number}",
        "fields": fields,
        "metadata": {},
        "suggestions": {},
        "responses": {"ranking": given, **more},
        "vectors": {},
        "_server_id": str(uuid.uuid4()),
    }


LOST = "rankings without ranks, all in one order"


def test_lists_of_argilla_2_count_only_where_they_disagree(tmp_path: Path) -> None:
    options = ["response-1", "response-2", "response-3"]
    text = json.dumps([of_2x(1, options, options), of_2x(2, options)])
    sets, report = interchange.read("argilla", argilla_file(tmp_path, text))
    assert (len(sets.prompts), sets.judgements) == (2, [])
    assert {reason[: len(LOST)]: count for reason, count in report.left_out.items()} == {LOST: 3}
    other = ["response-3", "response-1", "response-2"]
    comment = [{"value": "hm", "user_id": ANN, "status": "submitted"}]
    text = json.dumps([of_2x(1, options, other, status="submitted", note=comment), of_2x(2, options, status="draft")])
    sets, report = interchange.read("argilla", argilla_file(tmp_path, text))
    assert [(one.labeler, list(one.ranks.values()), one.note) for one in sets.judgements] == [
        (ANN, [1, 2, 3], "hm"),
        (BOB, [1, 2, 3], None),
    ]
    assert sets.judgements[1].ranks == {"r1/response-3": 1, "r1/response-1": 2, "r1/response-2": 3}
    assert report.left_out == {"responses with status draft": 1}


def test_ranks_in_the_shape_of_argilla_2_count(tmp_path: Path) -> None:
    ranks = [{"value": f"response-{number}", "rank": rank} for number, rank in ((1, 2), (2, 1), (3, 2))]
    sets, report = interchange.read("argilla", argilla_file(tmp_path, json.dumps([of_2x(1, ranks)])))
    assert list(sets.judgements[0].ranks.values()) == [2, 1, 2]
    assert report.doubts["responses without a status, taken as submitted: Argilla 2's to_json gives none, even of drafts"] == 1


def test_other_names_of_questions_and_fields(tmp_path: Path) -> None:
    fields = {"instruction": "Why?", "Response 1": "So.", "Response 2": "Because.", "Golden Answer": "x"}
    ranking = {"value": [{"value": "2", "rank": 1}, {"value": "1", "rank": 2}]}
    one = record({"user_id": ANN, "status": "submitted", "values": {"x": ranking, "y": {"value": 3}}}, fields=fields)
    sets, _ = answered(tmp_path, one)
    assert sets.judgements[0].ranks == {"q1/Response 2": 1, "q1/Response 1": 2}
    several = changed(one, "responses", 0, "values", "z", to=ranking)
    with pytest.raises(RecordError, match=r":1, response 1: holds several rankings \(x, z\); choose one with --question"):
        interchange.read("argilla", argilla_file(tmp_path, lines(several, several)))
    assert answered(tmp_path, several, question="z")[0].judgements[0].ranks["q1/Response 2"] == 1
    with pytest.raises(RecordError, match=r"'x' names '2', which is no answer; .* are: Answer 2, Response 1, Response 2$"):
        answered(tmp_path, changed(one, "fields", "Answer 2", to="Or."))


def test_options_that_a_record_has_no_answer_for(tmp_path: Path) -> None:
    short = record(response(ANN, 3, 1, 2))
    long = record(response(ANN, 3, 1, 2), external_id="q2")
    long["fields"]["response-3"] = "Third."
    sets, report = answered(tmp_path, short, long)
    assert [list(one.ranks.values()) for one in sets.judgements] == [[3, 1], [3, 1, 2]]
    assert report.doubts["rankings that also name answers which their record does not have: those are left out"] == 1
    partly = record(response(ANN, 2))
    assert answered(tmp_path, partly)[1].left_out == {"judgements that leave out an answer of their prompt": 1}


ONE = record(response(ANN, 2, 1))


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("fields",), ..., r":2: field 'fields': expected a JSON object, found nothing"),
        (
            ("fields", "prompt"),
            ...,
            r":2: field 'fields': expected one of prompt, .* there are: response-1,",
        ),
        (("fields", "prompt"), 5, r":2: field 'fields.prompt'"),
        (("fields", "response-1"), "a\0", r":2: holds a NUL character"),
        (("external_id",), True, r":2: field 'external_id'"),
        (("external_id",), "q0", r":2: Prompt id 'q0' was already used"),
        (("responses",), "none", r":2: field 'responses': expected a JSON object, found 'none'"),
        (("responses", 0), 5, r":2, response 1: field 'response'"),
        (("responses", 0, "user_id"), None, r":2, response 1: field 'user_id': expected text or a whole number, found nothing"),
        (
            ("responses", 0, "status"),
            "done",
            r":2, response 1: field 'status': expected submitted, .* found 'done'",
        ),
        (("responses", 0, "values"), [1], r":2, response 1: field 'values'"),
        (("responses", 0, "values", "ranking"), 5, r":2, response 1: field 'values.ranking'"),
        (("responses", 0, "values", "ranking", "value"), "first", r":2, response 1: field 'ranking': expected a JSON array"),
        (("responses", 0, "values", "ranking", "value", 0, "rank"), ..., r"field 'ranking.rank': .*, found nothing"),
        (("responses", 0, "values", "ranking", "value", 0, "rank"), None, r"field 'ranking.rank'"),
        (("responses", 0, "values", "ranking", "value", 0, "rank"), 0, r"field 'ranking.rank'"),
        (("responses", 0, "values", "ranking", "value", 0, "rank"), True, r"field 'ranking.rank'"),
        (("responses", 0, "values", "ranking", "value", 0, "rank"), "1", r"field 'ranking.rank'"),
        (
            ("responses", 0, "values", "ranking", "value", 0, "value"),
            "context",
            r"'ranking' names 'context', which is no",
        ),
        (("responses", 0, "values", "ranking", "value", 0, "value"), "response-2", r"'ranking' ranks 'response-2' twice"),
        (("responses", 0, "values", "ranking", "value", 0), "response-1", r"field 'ranking': expected a JSON object"),
        (("responses", 0, "values", "flagged"), {"value": ["response-9"]}, r"'flagged' names 'response-9'"),
        (("responses", 0, "values", "note"), {"value": 5}, r"field 'note': expected text, found 5"),
        (("metadata",), {"heedful": 5}, r":2: field 'metadata.heedful': expected text"),
        (("metadata",), {"heedful": "{"}, r":2: metadata.heedful: not JSON"),
    ],
)
def test_a_wrong_record_is_named(path: tuple[Any, ...], to: Any, said: str, tmp_path: Path) -> None:
    before = record(response(ANN, 1, 2), external_id="q0")
    assert len(answered(tmp_path, before, ONE)[0].judgements) == 2
    with pytest.raises(RecordError, match=said) as raised:
        answered(tmp_path, before, changed(ONE, *path, to=to))
    assert raised.value.where.startswith(f"{tmp_path / 'records.jsonl'}:2")


@pytest.mark.parametrize(
    ("responses", "said"),
    [
        ({"ranking": 5}, r"record 1: field 'responses.ranking': expected a JSON array"),
        ({"ranking": [{"value": [], "user_id": "None"}]}, r"response 1 to 'ranking': field 'user_id'"),
        ({"ranking": [{"value": [], "user_id": ANN}] * 2}, r"response 2 to 'ranking': user '.*' answered it twice"),
        (
            {"ranking": [{"value": [], "user_id": ANN}], "note": [{"value": "a", "user_id": ANN, "status": "draft"}]},
            r"response 1 to 'note': field 'status': 'draft' here and None in another answer",
        ),
    ],
)
def test_wrong_responses_of_argilla_2_are_named(responses: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=said):
        interchange.read("argilla", argilla_file(tmp_path, json.dumps([of_2x(1) | {"responses": responses}])))


# ---- tables

HEADER = "prompt_id,prompt,completion_id,completion,model,labeler,rank,flagged,criterion,seconds,created_at,note\n"
ROWS = "p,Why?,a,So.,m,ann,1,0,honesty,2.5,2024-01-02,\np,Why?,b,Because.,m,ann,,1,honesty,2.5,2024-01-02,\n"


def tabled(folder: Path, text: str, **asked: Any) -> tuple[Sets, interchange.Report]:
    (folder / "t.csv").write_text(text, encoding="utf-8", newline="")
    return interchange.read("csv", folder / "t.csv", Asked(**asked))


def test_a_table_made_by_hand(tmp_path: Path) -> None:
    for text in (HEADER + ROWS, "\ufeff" + (HEADER + ROWS).replace("\n", "\r\n"), HEADER + ROWS + ",,,,,,,,,,,\n\n"):
        sets, report = tabled(tmp_path, text)
        (one,) = sets.judgements
        assert (one.ranks, one.flagged, one.labeler, one.seconds) == ({"a": 1}, ("b",), "ann", 2.5)
        assert (one.criterion, one.created_at, one.note, one.source) == ("honesty", "2024-01-02", None, "human")
        assert sets.prompts == [asks("p")]
        assert report.left_out == {}


def test_a_table_of_the_needed_columns_alone(tmp_path: Path) -> None:
    header = "rank,labeler,completion,completion_id,prompt,prompt_id,mood\n"
    text = header + "2,ann,So.,a,Why?,p,good\n1,ann,No.,b,Why?,p,\n1,bob,No.,b,Why?,p,\n"
    sets, report = tabled(tmp_path, text, criterion="wit")
    assert [(one.labeler, one.ranks, one.criterion) for one in sets.judgements] == [
        ("ann", {"a": 2, "b": 1}, "wit"),
        ("bob", {"b": 1}, "wit"),
    ]
    assert report.left_out == {"column 'mood', which is none of ours": 1}
    assert report.doubts["judgements that leave out an answer of their prompt"] == 1
    assert report.doubts["judgements without a time: created_at is empty"] == 2


def test_an_answer_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    sets, _ = tabled(tmp_path, HEADER + ROWS.replace("So.", "x" * (limit + 1)))
    assert len(sets.completions[0].text) == limit + 1
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("prompt_id,", "prompt,", r":1: there is no column 'prompt_id'; expected columns divided by commas"),
        (HEADER, HEADER.replace(",", ";"), r":1: there is no column 'prompt_id'; .* found: prompt_id;prompt"),
        ("model,", "prompt,", r":1: column 'prompt' occurs twice"),
        (",1,0,", ",,0,", r":2: field 'rank': expected a whole number, 1 or more, or 1 in flagged, found nothing"),
        (",1,0,", ",0,0,", r":2: field 'rank': .*, found '0'"),
        (",1,0,", ",1.5,0,", r":2: field 'rank': .*, found '1.5'"),
        (",1,0,", ",first,0,", r":2: field 'rank': .*, found 'first'"),
        (",1,0,", ",1,1,", r":2: field 'rank': expected nothing, as the completion is flagged, found '1'"),
        (",1,0,", ",1,maybe,", r":2: field 'flagged': expected 0 or 1, found 'maybe'"),
        (",ann,1,", ",,1,", r":2: field 'rank' is filled and 'labeler' is empty"),
        ("2.5,2024-01-02,\np", '"2,5",2024-01-02,\np', r":3: field 'seconds': found '2.5', and '2,5' in a row above"),
        ("2.5", '"2,5"', r":2: field 'seconds': expected a number, with a point and not a comma"),
        ("2.5", "-1", r":2: field 'seconds': expected a number of seconds, 0 or more, found -1.0"),
        ("2.5", "nan", r":2: field 'seconds'"),
        (",b,Because.", ",a,So.", r":3: labeler 'ann' judges completion 'a' twice"),
        (",b,Because.", ",a,Because.", r":3: completion 'a' has another prompt, text or model in a row above"),
        ("\np,Why?", "\np,What?", r":3: prompt 'p' has another text than in a row above"),
        ("\np,", "\n,", r":2: field 'prompt_id': expected an id, found nothing"),
        (",b,", ",,", r":3: field 'completion_id': expected an id, found nothing"),
        ("\np,Why?,b", "\nWhy?,b", r":3: expected 12 cells as in the first row, found 11"),
        (",So.,", ',"So".,', r":2: not a CSV row"),
        (",So.,", ',"So.,', r":2: not a CSV row"),
        (",So.,", ",S\0o.,", r":2: holds a NUL character"),
        ("Why?", '"[{""role"": ""user""]"', r":2: prompt: not JSON"),
        ("Why?", '"[{""role"": ""critic"", ""content"": """"}]"', r":2: Prompt field 'messages.0.role'"),
        (ROWS, "", r"t.csv: holds no row below the names of the columns"),
        (HEADER + ROWS, "", r"t.csv: is empty"),
    ],
)
def test_a_wrong_row_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = (HEADER + ROWS).replace(old, new, -1 if old == "2.5" else 1)
    assert text != HEADER + ROWS
    with pytest.raises(RecordError, match=said):
        tabled(tmp_path, text)


def test_a_wrong_source_is_named(tmp_path: Path) -> None:
    text = (HEADER + ROWS).replace("\n", ",source\n", 1).replace("2024-01-02,\n", "2024-01-02,,robot\n")
    with pytest.raises(RecordError, match=r":2: field 'source': expected human, ai or simulated, found 'robot'"):
        tabled(tmp_path, text)
    found, _ = tabled(tmp_path, text.replace("robot", "simulated"))
    assert found.judgements[0].source == "simulated"


# ---- files that are none of a format


@pytest.mark.parametrize("form", ["label-studio", "argilla"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"file: is empty; export it again"),
        (b" \n", r"file: is empty"),
        (b"nothing", r"file:1: not JSON"),
        (b'[\n{"id": 1},\n{"id": ]', r"file:3: not JSON \(Expecting value, column 8\)"),
        (b"[]", r"file"),
        (b"[1, 2]", r"(task|record) 1: field '(task|record)': expected a JSON object, found 1"),
        (b"5", r"file"),
        (b'["a", "b"]', r"(task|record) 1"),
        (b"[NaN]", r"not JSON \(NaN is no JSON number\)"),
        (b'[{"id": 1, "id": 2}]', r"not JSON \(key 'id' stands twice in one object\)"),
        (b'[{"a": ' + b"9" * 5000 + b"}]", r"not JSON"),
        (b"[" * 200_000, r"not JSON"),
        (b'[{"a": "\\ud800"}]', r"(task|record) 1: holds half of a surrogate pair"),
        (b'\n[{"a": "\xff"}]', r"file:2: is not UTF-8"),
        (b'\n[{"a": "\0"}]', r"file:2: holds a NUL character"),
        ('[{"id": 1}]'.encode("utf-16"), r"file:1: holds a NUL character; save the file as UTF-8"),
    ],
)
def test_a_file_of_something_else_is_named(form: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RecordError, match=said):
        interchange.read(form, tmp_path / "file")


def test_a_file_that_is_not_there_and_a_format_that_is_none(tmp_path: Path) -> None:
    for form in interchange.FORMATS:
        with pytest.raises(RecordError, match=r"none: cannot be read \(No such file or directory\); check the path"):
            interchange.read(form, tmp_path / "none")
    with pytest.raises(DataError, match="unknown format 'label_studio'; the nearest known one is 'label-studio'"):
        interchange.read("label_studio", tmp_path / "none")
    with pytest.raises(DataError, match="--buckets says nothing about argilla"):
        interchange.read("argilla", tmp_path / "none", Asked(buckets=("a",)))
    with pytest.raises(DataError, match="--question says nothing about csv"):
        interchange.read("csv", tmp_path / "none", Asked(question="a"))


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(deadline=None)
@pytest.mark.parametrize("form", list(interchange.FORMATS))
def test_no_file_brings_a_traceback(form: str, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "file"
    path.write_bytes(content)
    with pytest.raises(RecordError):
        interchange.read(form, path)


KEYS = st.sampled_from(["1", "_", "value", "rank", "id"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["a", "b", "", "_", "1", "submitted", ANN]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
PLACES = {
    "label-studio": [
        ("data",),
        ("data", "items"),
        ("data", "heedful"),
        ("annotations",),
        ("annotations", 0, "result"),
        ("annotations", 0, "completed_by"),
        ("annotations", 0, "result", 0, "value", "ranker"),
        ("annotations", 0, "result", 0, "meta"),
        ("drafts",),
    ],
    "argilla": [
        ("fields",),
        ("metadata",),
        ("responses",),
        ("responses", 0, "values"),
        ("responses", 0, "status"),
        ("responses", 0, "values", "ranking", "value"),
        ("responses", 0, "values", "flagged"),
    ],
}


@given(st.data())
@settings(deadline=None, max_examples=200)
@pytest.mark.parametrize("form", list(PLACES))
def test_junk_in_any_place_is_read_or_named(form: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """No other exception than ours comes, and what is read ranks each answer of its prompt once."""
    path = tmp_path_factory.mktemp("junk") / "file"
    value = changed(GOOD if form == "label-studio" else ONE, *data.draw(st.sampled_from(PLACES[form])), to=data.draw(JSON))
    path.write_text(json.dumps([value]), encoding="utf-8")
    with contextlib.suppress(RecordError):
        sets, _ = interchange.read(form, path)
        assert all({*one.ranks, *one.flagged} == {c.id for c in sets.completions} for one in sets.judgements)


# ---- the command


def test_the_command_says_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text(json.dumps([GOOD, task(["a", "b"], number=2)]))
    words = ["label", "convert", "--from", "label-studio", str(tmp_path / "export.json"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    first, *others = done.output.splitlines()
    assert first == f"2 prompts, 6 completions, 1 judgements in {tmp_path / 'out'}"
    assert others[0] == "left out 1: annotations with items that nobody put into a bucket"
    assert others[1].startswith("look at 6: completions of which the file does not say model, finish and sampling")
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert (found["prompts"], found["completions"], found["judgements"]) == (2, 6, 1)
    assert found["left_out"] == {"annotations with items that nobody put into a bucket": 1}
    assert list(found["doubts"].values()) == [6]
    assert found["output"] == str(tmp_path / "out")
