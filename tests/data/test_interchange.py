"""Judgements to other tools' formats and back: what comes back, and what is counted because it cannot."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.data import interchange
from heedful.data.interchange import Sets, argilla, label_studio, table
from heedful.errors import DataError, HeedfulError
from heedful.records import Completion, Judgement, Message, Prompt, Record, Sampling, read_jsonl

# ---- records of our own

SAMPLING = Sampling(temperature=0.7, top_p=0.9, seed=3, max_new_tokens=32)


def prompt(id_: str, text: str = "Why?", **more: Any) -> Prompt:
    return Prompt(id=id_, messages=(Message(role="user", content=text),), **more)


def answer(id_: str, prompt_id: str, text: str, **more: Any) -> Completion:
    fields: dict[str, Any] = {"model": "small", "finish": "length", "sampling": SAMPLING} | more
    return Completion(id=id_, prompt_id=prompt_id, text=text, **fields)


def judged(id_: str, prompt_id: str, labeler: str, ranks: dict[str, int], **more: Any) -> Judgement:
    fields: dict[str, Any] = {"source": "human", "criterion": "helpfulness", "created_at": "2026-05-04T10:00:00+00:00"} | more
    return Judgement(id=id_, prompt_id=prompt_id, labeler=labeler, ranks=ranks, **fields)


CHAT = Prompt(
    id="chat",
    messages=(
        Message(role="system", content="Be brief."),
        Message(role="user", content="[1] or 2?"),
        Message(role="assistant", content="2."),
        Message(role="user", content="Sure?"),
    ),
    tags=("harmless",),
    split="train",
    reference="a field of ours that nobody else knows",
)
OURS = Sets(
    [prompt("p", '=1+1 "quoted", and\r\nmore', tags=("a", "b")), CHAT, prompt("alone", "Nobody answers.")],
    [
        answer("p/1", "p", "-- no", finish="stop"),
        answer("p/2", "p", "@home", policy_version="7"),
        answer("p/3", "p", "'=quoted", model="other"),
        answer("p/4", "p", "", extra={"kept": [1, None]}),
        answer("c/1", "chat", '[{"role": "user", "content": "an answer that looks like messages"}]'),
        answer("c/2", "chat", "\tTab\rand return"),
    ],
    [
        judged("j1", "p", "ann", {"p/2": 1, "p/1": 2, "p/3": 2}, flagged=("p/4",), seconds=12.5, note="=SUM(A1)"),
        judged(
            "j2", "p", "bob@example.org", {"p/1": 1, "p/2": 2, "p/3": 3, "p/4": 4}, shown_order=("p/4", "p/3", "p/2", "p/1")
        ),
        judged("j3", "p", str(uuid.UUID(int=7)), {}, flagged=("p/3", "p/1", "p/2", "p/4"), note="all bad\nreally"),
        judged("j4", "chat", "ann", {"c/1": 1, "c/2": 1}, source="ai", criterion="brevity", arm="x"),
    ],
)


def by_id(records: Sequence[Record]) -> dict[str, Any]:
    found = {record.id: record.model_dump() for record in records}
    assert len(found) == len(records)
    return found


def there_and_back(form: str, sets: Sets, folder: Path) -> tuple[Sets, interchange.Report, interchange.Report]:
    wrote = interchange.write(form, folder / "file", sets)
    found, read = interchange.read(form, folder / "file")
    return found, wrote, read


@pytest.mark.parametrize("form", ["label-studio", "argilla"])
def test_records_come_back_whole(form: str, tmp_path: Path) -> None:
    found, wrote, read = there_and_back(form, OURS, tmp_path)
    assert found.prompts == OURS.prompts
    assert found.completions == OURS.completions
    given, got = by_id(OURS.judgements), by_id(found.judgements)
    assert got == given
    assert (wrote, read) == (interchange.Report(), interchange.Report()) or form == "argilla"
    if form == "argilla":
        assert wrote.doubts == {"prompts with another number of answers than most: Argilla asks for one number in a dataset": 1}
        assert (wrote.left_out, read) == ({}, interchange.Report())


def test_a_table_brings_back_what_it_has_columns_for_and_counts_the_rest(tmp_path: Path) -> None:
    found, wrote, read = there_and_back("csv", OURS, tmp_path)
    assert [(p.id, p.messages) for p in found.prompts] == [(p.id, p.messages) for p in OURS.prompts if p.id != "alone"]
    columns = ("id", "prompt_id", "text", "model")
    assert [[getattr(c, name) for name in columns] for c in found.completions] == [
        [getattr(c, name) for name in columns] for c in OURS.completions
    ]
    assert all(c.model_extra == {"assumed": ["finish", "sampling"]} for c in found.completions)

    def known(one: Judgement) -> list[Any]:
        names = ("prompt_id", "labeler", "source", "criterion", "ranks", "seconds", "created_at", "note")
        return [*(getattr(one, name) for name in names), set(one.flagged)]

    assert [known(one) for one in found.judgements] == [known(one) for one in OURS.judgements]
    lacking = ", for which the table has no column"
    assert wrote.left_out == {
        "prompts without completions": 1,
        f"tags of prompts{lacking}": 2,
        f"split of prompts{lacking}": 1,
        f"reference of prompts{lacking}": 1,
        f"finish of completions{lacking}": 6,
        f"sampling of completions{lacking}": 6,
        f"policy_version of completions{lacking}": 1,
        f"extra of completions{lacking}": 1,
        f"id of judgements{lacking}": 4,
        f"shown_order of judgements{lacking}": 1,
        f"arm of judgements{lacking}": 1,
    }
    assert read.left_out == {}
    assert list(read.doubts.values()) == [6], "each completion has placeholders"
    again, _, _ = there_and_back("csv", found, tmp_path)
    assert again == found, "ids that reading makes are the same each time"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
LEADING = st.sampled_from(
    ["", "=", "+", "-", "@", "\t", "\r", "\n", "'", "''=", "'a", "[{", '[{"role": "user"}]', '[ {"content":']
)
ID = st.builds(str.__add__, LEADING, TEXT).filter(bool)


@st.composite
def own_sets(draw: st.DrawFn) -> Sets:
    """One judgement a labeler and prompt, of all answers, with ranks that may have gaps but stay within their number."""
    prompts, completions, judgements = [], [], []
    ids = draw(st.lists(ID, min_size=1, max_size=3, unique=True))
    for id_ in ids:
        roles = st.sampled_from(["system", "user", "assistant"])
        turns = draw(st.lists(st.builds(Message, role=roles, content=ID), min_size=1, max_size=3))
        prompts.append(Prompt(id=id_, messages=tuple(turns), tags=tuple(draw(st.lists(TEXT, max_size=2)))))
        own = [f"{id_}#{number}" for number in range(draw(st.integers(1, 4)))]
        completions += [answer(one, id_, draw(ID)) for one in own]
        for labeler in draw(st.lists(ID, max_size=2, unique=True)):
            flagged = draw(st.lists(st.sampled_from(own), unique=True))
            ranks = {one: draw(st.integers(1, len(own))) for one in own if one not in flagged}
            more = {
                "flagged": tuple(flagged),
                "shown_order": tuple(draw(st.permutations(own))),
                "seconds": draw(st.none() | st.floats(0, 1e9)),
                "note": draw(st.none() | ID),
                "criterion": draw(ID),
                "source": draw(st.sampled_from(["human", "ai", "simulated"])),
            }
            judgements.append(judged(f"j{len(judgements)}", id_, labeler, ranks, **more))
    return Sets(prompts, completions, judgements)


@settings(deadline=None, max_examples=60)
@given(own_sets())
@pytest.mark.parametrize("form", ["label-studio", "argilla"])
def test_any_records_come_back_whole(form: str, tmp_path_factory: pytest.TempPathFactory, sets: Sets) -> None:
    found, wrote, read = there_and_back(form, sets, tmp_path_factory.mktemp("any"))
    assert found.prompts == sets.prompts
    assert found.completions == sets.completions
    assert by_id(found.judgements) == by_id(sets.judgements)
    assert (wrote.left_out, read) == ({}, interchange.Report())


@settings(deadline=None, max_examples=60)
@given(own_sets())
def test_any_records_come_back_from_a_table(tmp_path_factory: pytest.TempPathFactory, sets: Sets) -> None:
    found, _, _ = there_and_back("csv", sets, tmp_path_factory.mktemp("any"))
    assert {p.id: p.messages for p in found.prompts} == {p.id: p.messages for p in sets.prompts}
    assert [(c.id, c.prompt_id, c.text, c.model) for c in found.completions] == [
        (c.id, c.prompt_id, c.text, c.model) for c in sets.completions
    ]

    def known(one: Judgement) -> dict[str, Any]:
        return one.model_dump(exclude={"id", "shown_order", "flagged"}) | {"flagged": set(one.flagged)}

    assert [known(one) for one in found.judgements] == [known(one) for one in sets.judgements]


@given(st.builds(str.__add__, LEADING, TEXT))
def test_no_cell_begins_like_a_formula_and_each_comes_back(cell: str) -> None:
    guarded = table.guarded(cell)
    assert not guarded.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert table.unguarded(guarded) == cell
    assert guarded in (cell, f"'{cell}")


def test_the_written_table_is_what_a_spreadsheet_may_open(tmp_path: Path) -> None:
    interchange.write("csv", tmp_path / "t.csv", OURS)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8"), newline="")))
    assert [row["rank"] for row in rows if row["labeler"] == "ann"] == ["2", "1", "2", "", "1", "1"]
    assert [row["flagged"] for row in rows if row["labeler"] == "ann"] == ["0", "0", "0", "1", "0", "0"]
    assert {row["note"] for row in rows} == {"'=SUM(A1)", "", "all bad\nreally"}
    assert rows[0]["completion"] == "'-- no"
    assert json.loads(rows[-1]["prompt"])[0] == {"role": "system", "content": "Be brief."}
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values())


@pytest.mark.parametrize("text", ['[{"role": "user", "content": "Why?"}]', '[ {"content": 1', "[1] or 2?", "[{}]"])
def test_a_question_that_looks_like_messages_stays_a_question(text: str, tmp_path: Path) -> None:
    sets = Sets([prompt("p", text)], [answer("a", "p", "So.")], [judged("j", "p", "ann", {"a": 1})])
    for form in interchange.FORMATS:
        assert there_and_back(form, sets, tmp_path)[0].prompts == sets.prompts, form


# ---- what a format cannot carry


def test_rankings_of_some_of_the_answers_stay_behind_but_in_a_table(tmp_path: Path) -> None:
    some = OURS._replace(judgements=[judged("j", "p", "ann", {"p/1": 1, "p/2": 2})])
    for form in ("label-studio", "argilla"):
        found, wrote, _ = there_and_back(form, some, tmp_path)
        assert found.judgements == []
        assert wrote.left_out == {"judgements that leave out an answer of their prompt": 1}
    found, _, read = there_and_back("csv", some, tmp_path)
    assert [one.ranks for one in found.judgements] == [{"p/1": 1, "p/2": 2}]
    assert read.doubts["judgements that leave out an answer of their prompt"] == 1
    assert len(found.completions) == 6, "answers that nobody judged have rows too"


def test_of_a_labelers_two_rankings_argilla_gets_the_last(tmp_path: Path) -> None:
    first = judged("j1", "chat", "ann", {"c/1": 1, "c/2": 2})
    second = judged("j2", "chat", "ann", {"c/1": 2, "c/2": 1}, created_at="2026-05-05T10:00:00+00:00")
    twice = OURS._replace(judgements=[first, second])
    found, wrote, _ = there_and_back("argilla", twice, tmp_path)
    assert found.judgements == [second]
    assert list(wrote.left_out.values()) == [1]
    for form in ("label-studio", "csv"):
        found, _, _ = there_and_back(form, twice, tmp_path)
        assert [one.ranks for one in found.judgements] == [first.ranks, second.ranks], form
    same = OURS._replace(judgements=[first, second.model_copy(update={"created_at": first.created_at})])
    found, wrote, _ = there_and_back("csv", same, tmp_path)
    assert [one.ranks for one in found.judgements] == [first.ranks]
    assert wrote.left_out["judgements with the prompt, labeler, criterion and time of another"] == 1


@pytest.mark.parametrize("form", ["label-studio", "argilla"])
def test_ranks_beyond_the_number_of_answers_are_renumbered_and_counted(form: str, tmp_path: Path) -> None:
    found, wrote, _ = there_and_back(
        form, OURS._replace(judgements=[judged("j", "chat", "ann", {"c/1": 900, "c/2": 7})]), tmp_path
    )
    assert found.judgements[0].ranks == {"c/1": 2, "c/2": 1}
    assert wrote.doubts["rankings with ranks beyond the number of answers: renumbered without gaps"] == 1


def test_written_responses_hold_what_argillas_server_asks_for(tmp_path: Path) -> None:
    argilla.write(tmp_path / "r.jsonl", OURS)
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(records) == 3
    for record in records:
        assert set(record) == {"external_id", "fields", "metadata", "responses"}, "the 1.x client forbids others"
        options = [name for name in record["fields"] if name != "prompt"]
        users = [uuid.UUID(response["user_id"]) for response in record["responses"]]
        assert len(users) == len(set(users))
        for response in record["responses"]:
            assert response["status"] == "submitted"
            ranking = response["values"]["ranking"]["value"]
            assert [one["value"] for one in ranking] == options
            assert {one["rank"] for one in ranking} <= set(range(1, len(options) + 1))
    first = records[0]["responses"][0]["values"]
    assert first["flagged"] == {"value": ["response-4"]}
    assert [one["rank"] for one in first["ranking"]["value"]] == [2, 1, 2, 3]
    gaps = judged("j", "p", "ann", {"p/1": 1, "p/2": 4, "p/3": 1}, flagged=("p/4",))
    argilla.write(tmp_path / "r.jsonl", OURS._replace(judgements=[gaps]))
    values = json.loads((tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()[0])["responses"][0]["values"]
    assert [one["rank"] for one in values["ranking"]["value"]] == [1, 4, 1, 4], "no rank is beyond the number of answers"
    assert records[0]["responses"][2]["user_id"] == str(uuid.UUID(int=7)), "a labeler who has a UUID keeps it"


def test_the_labelling_interface_has_a_bucket_for_each_rank_and_the_flags(tmp_path: Path) -> None:
    label_studio.write(tmp_path / "tasks.json", OURS)
    view = ElementTree.fromstring((tmp_path / "tasks.json.interface.xml").read_text(encoding="utf-8"))
    assert [bucket.get("name") for bucket in view.iter("Bucket")] == ["1", "2", "3", "4", "flagged"]
    assert [(one.get("name"), one.get("value")) for one in view.iter("List")] == [("results", "$items")]
    result = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))[0]["annotations"][0]["result"][0]
    ranker = view.find("Ranker")
    assert ranker is not None
    assert (result["from_name"], result["to_name"]) == (ranker.get("name"), ranker.get("toName"))
    assert result["value"]["ranker"] == {"_": [], "1": ["p/2"], "2": ["p/1", "p/3"], "flagged": ["p/4"]}


@pytest.mark.parametrize("form", list(interchange.FORMATS))
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": [*OURS.prompts, OURS.prompts[0]]}, "Prompt id 'p' occurs twice"),
        ({"completions": [*OURS.completions, answer("x", "none", "a")]}, "completion 'x' answers prompt 'none'"),
        (
            {"judgements": [judged("j", "chat", "ann", {"p/1": 1})]},
            "names completion 'p/1', which is no answer to",
        ),
        ({"judgements": [judged("j", "none", "ann", {})]}, "is of prompt 'none'"),
        ({"judgements": [], "completions": [answer("x", "p", "a\0b")]}, "'x' holds a NUL character"),
    ],
)
def test_records_that_do_not_fit_are_not_written(form: str, change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        interchange.write(form, tmp_path / "file", OURS._replace(**change))
    assert list(tmp_path.iterdir()) == []


def test_an_order_of_showing_that_no_longer_fits_is_left_out(tmp_path: Path) -> None:
    label_studio.write(tmp_path / "t.json", OURS)
    tasks = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    tasks[0]["annotations"][1]["result"][0]["meta"]["heedful"]["shown_order"] = ["p/1", "p/2"]
    (tmp_path / "t.json").write_text(json.dumps(tasks))
    sets, report = interchange.read("label-studio", tmp_path / "t.json")
    assert next(one for one in sets.judgements if one.id == "j2").shown_order == ()
    assert list(report.doubts.values()) == [1]


# ---- as three files


def test_convert_writes_three_files_or_none(tmp_path: Path) -> None:
    interchange.write("label-studio", tmp_path / "house.json", OURS)
    sets, _ = interchange.convert("label-studio", tmp_path / "house.json", tmp_path / "out")
    assert read_jsonl(tmp_path / "out/prompts.jsonl", Prompt, unique="id") == sets.prompts == OURS.prompts
    assert read_jsonl(tmp_path / "out/completions.jsonl", Completion, unique="id") == OURS.completions
    assert read_jsonl(tmp_path / "out/judgements.jsonl", Judgement, unique="id") == sets.judgements
    interchange.convert("label-studio", tmp_path / "house.json", tmp_path / "out")  # what it wrote itself it may replace
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(HeedfulError):
        interchange.convert("label-studio", tmp_path / "bad.json", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/prompts.jsonl").write_text("mine")
    with pytest.raises(HeedfulError, match="holds what heedful did not write"):
        interchange.convert("label-studio", tmp_path / "house.json", tmp_path / "mine")
