"""The codec: every record comes back as it went, and every bad line is named with what was expected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.errors import HeedfulError, RecordError
from heedful.records import (
    Completion,
    Judgement,
    Preference,
    Prompt,
    Record,
    Vote,
    by_id,
    iter_jsonl,
    parse_line,
    read_jsonl,
    to_line,
)

PROMPT: dict[str, Any] = {"id": "p1", "messages": [{"role": "user", "content": "Hi"}]}
SAMPLING = {"temperature": 1.0, "top_p": 0.9, "seed": 3, "max_new_tokens": 40}
COMPLETION = {"id": "c1", "prompt_id": "p1", "text": "Hello", "model": "m", "finish": "stop", "sampling": SAMPLING}
JUDGEMENT: dict[str, Any] = {
    "id": "j1",
    "prompt_id": "p1",
    "labeler": "ann",
    "source": "human",
    "criterion": "helpful",
    "ranks": {"a": 1, "b": 2},
    "created_at": "2026-01-01T00:00:00+00:00",
}
VOTE = {"completion_id": "c1", "prompt_id": "p1", "labeler": "ann", "value": 1, "created_at": "2026-01-01"}
PREFERENCE = {"prompt_id": "p1", "prompt": PROMPT["messages"], "chosen": "yes", "rejected": "no"}
EACH: list[tuple[type[Record], dict[str, Any]]] = [
    (Prompt, PROMPT),
    (Completion, COMPLETION),
    (Judgement, JUDGEMENT),
    (Vote, VOTE),
    (Preference, PREFERENCE),
]

TEXT = st.text(max_size=20)
NAME = st.text(min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
# Names that no record knows, among them some that pydantic could trip over.
EXTRA = st.dictionaries(st.sampled_from(["rubric", "reference", "note2", "über", "a b", "x-y", "0"]), JSON, max_size=3)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}), min_size=1, max_size=3
)


@st.composite
def judgements(draw: st.DrawFn) -> dict[str, Any]:
    ids = draw(st.lists(NAME, unique=True, max_size=5))
    cut = draw(st.integers(0, len(ids)))
    fields = JUDGEMENT | {"ranks": {id_: draw(st.integers(1, 9)) for id_ in ids[:cut]}, "flagged": ids[cut:]}
    if draw(st.booleans()):
        fields["shown_order"] = draw(st.permutations(ids))
    if draw(st.booleans()):
        fields |= {"seconds": draw(st.floats(0, 1e6)), "note": draw(TEXT)}
    return fields


FIELDS: list[st.SearchStrategy[tuple[type[Record], dict[str, Any]]]] = [
    st.fixed_dictionaries(
        {"id": NAME, "messages": MESSAGES}, optional={"split": st.sampled_from(["train", "heldout"]), "tags": st.lists(TEXT)}
    ).map(lambda fields: (Prompt, fields)),
    st.fixed_dictionaries({"text": TEXT, "finish": st.sampled_from(["stop", "length"])}).map(
        lambda fields: (Completion, COMPLETION | fields)
    ),
    judgements().map(lambda fields: (Judgement, fields)),
    st.fixed_dictionaries({"value": st.integers(0, 1)}).map(lambda fields: (Vote, VOTE | fields)),
    st.fixed_dictionaries(
        {"prompt": MESSAGES, "chosen": TEXT, "rejected": TEXT, "probability": st.floats(0.5, 1)},
        optional={"margin": st.floats(-5, 5), "chosen_id": TEXT, "judges": st.integers(1, 99)},
    ).map(lambda fields: (Preference, PREFERENCE | fields)),
]


@given(st.one_of(FIELDS), EXTRA)
def test_a_record_survives_its_line(case: tuple[type[Record], dict[str, Any]], extra: dict[str, Any]) -> None:
    kind, fields = case
    record = kind.model_validate(fields | extra)
    line = to_line(record)
    assert "\n" not in line
    assert parse_line(line, kind, "here") == record
    written = json.loads(line)
    # What came in is what stands in the line, unknown fields too; only None of fields we know is left out.
    assert {name: written[name] for name in fields | extra} == json.loads(json.dumps(fields | extra))


@pytest.mark.parametrize(("kind", "fields"), EACH)
def test_absent_optional_fields_are_not_written_but_unknown_nulls_are(kind: type[Record], fields: dict[str, Any]) -> None:
    line = json.loads(to_line(kind.model_validate(fields | {"odd": None, "deep": {"also": None}})))
    assert [name for name, value in line.items() if value is None] == ["odd"]
    assert line["deep"] == {"also": None}


@pytest.mark.parametrize(("kind", "fields"), EACH)
def test_records_are_frozen(kind: type[Record], fields: dict[str, Any]) -> None:
    record = kind.model_validate(fields)
    with pytest.raises(ValueError, match="frozen"):
        record.labeler = "eve"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "fields"), EACH)
def test_each_required_field_is_missed_by_name(kind: type[Record], fields: dict[str, Any]) -> None:
    for name in fields:
        rest = {other: value for other, value in fields.items() if other != name}
        with pytest.raises(RecordError) as caught:
            parse_line(json.dumps(rest), kind, "f.jsonl:7")
        assert str(caught.value) == f"f.jsonl:7: {kind.__name__} field '{name}': Field required"
        assert caught.value.where == "f.jsonl:7"


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Prompt, PROMPT | {"id": ""}, "Prompt field 'id': String should have at least 1 character, found ''"),
        (Prompt, PROMPT | {"id": 7}, "Prompt field 'id': Input should be a valid string, found 7"),
        (
            Prompt,
            PROMPT | {"messages": []},
            "Prompt field 'messages': Tuple should have at least 1 item after validation, not 0, found []",
        ),
        (
            Prompt,
            PROMPT | {"messages": [{"role": "user", "content": "Hi"}, {"role": "robot", "content": "Hi"}]},
            "Prompt field 'messages.1.role': Input should be 'system', 'user' or 'assistant', found 'robot'",
        ),
        (
            Prompt,
            PROMPT | {"messages": [{"role": "user", "text": "Hi"}]},
            "Prompt field 'messages.0.content': Field required",
        ),
        (Prompt, PROMPT | {"split": "test"}, "Prompt field 'split': Input should be 'train' or 'heldout', found 'test'"),
        (
            Completion,
            COMPLETION | {"finish": "eos"},
            "Completion field 'finish': Input should be 'stop' or 'length', found 'eos'",
        ),
        (
            Completion,
            COMPLETION | {"sampling": SAMPLING | {"top_p": 0}},
            "Completion field 'sampling.top_p': Input should be greater than 0, found 0",
        ),
        (
            Judgement,
            JUDGEMENT | {"ranks": {"a": 0}},
            "Judgement field 'ranks.a': Input should be greater than or equal to 1, found 0",
        ),
        *(
            (
                Judgement,
                JUDGEMENT | {"ranks": {"a": rank}},
                f"Judgement field 'ranks.a': Input should be a valid integer, found {rank!r}",
            )
            for rank in (True, "2")
        ),
        (
            Judgement,
            JUDGEMENT | {"ranks": {"a": 1.5}},
            "Judgement field 'ranks.a': Input should be a valid integer, found 1.5",
        ),
        (
            Judgement,
            JUDGEMENT | {"flagged": ["b"]},
            "Judgement: completion 'b' is both ranked and flagged; keep one of the two",
        ),
        (Judgement, JUDGEMENT | {"flagged": ["c", "c"]}, "Judgement: flagged holds a completion twice; name each once"),
        *[
            (
                Judgement,
                JUDGEMENT | {"shown_order": shown},
                "Judgement: shown_order must hold exactly the ranked and the flagged completions, each once",
            )
            for shown in (["a"], ["a", "b", "c"], ["a", "c"], ["a", "b", "a"])
        ],
        (
            Judgement,
            JUDGEMENT | {"source": "robot"},
            "Judgement field 'source': Input should be 'human', 'ai' or 'simulated', found 'robot'",
        ),
        (Vote, VOTE | {"value": 2}, "Vote field 'value': Input should be 0 or 1, found 2"),
        (
            Preference,
            PREFERENCE | {"probability": 0.3},
            "Preference field 'probability': Input should be greater than or equal to 0.5, found 0.3",
        ),
        (
            Preference,
            PREFERENCE | {"probability": "sure"},
            "Preference field 'probability': Input should be a valid number, found 'sure'",
        ),
        (
            Preference,
            PREFERENCE | {"judges": 0},
            "Preference field 'judges': Input should be greater than or equal to 1, found 0",
        ),
        (
            Preference,
            PREFERENCE | {"chosen": ["x" * 99]},
            "Preference field 'chosen': Input should be a valid string, found ['" + "x" * 55 + "...",
        ),
    ],
)
def test_a_bad_value_is_named(kind: type[Record], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_line(json.dumps(fields), kind, "f.jsonl:7")
    assert str(caught.value) == f"f.jsonl:7: {message}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "p1", ', "not a JSON object (Expecting property name enclosed in double quotes, column 14)"),
        ("nonsense", "not a JSON object (Expecting value, column 1)"),
        ('{"id": 1}{"id": 2}', "not a JSON object (Extra data, column 10)"),
        ("[1, 2]", "expected a JSON object, found list"),
        ('"text"', "expected a JSON object, found str"),
        ("null", "expected a JSON object, found NoneType"),
        ('{"score": NaN}', "not a JSON object (NaN is no JSON number)"),
        ('{"score": -Infinity}', "not a JSON object (-Infinity is no JSON number)"),
        (r'{"text": "\ud83d"}', "not a JSON object (half of a surrogate pair)"),
        ('{"a":' * 20_000, "not a JSON object (nested too deeply)"),
        (
            '{"id": 1' + "0" * 5000 + "}",
            "not a JSON object (Exceeds the limit (4300 digits) for integer string conversion: value has 5001 digits)",
        ),
    ],
)
def test_a_line_that_is_no_json_object(line: str, problem: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_line(line, Prompt, "f.jsonl:7")
    assert str(caught.value) == f"f.jsonl:7: {problem}; mend or drop the line"


def test_escapes_that_are_fine() -> None:
    fields = parse_line(r'{"id": "p", "messages": [{"role": "user", "content": "\ud83d\ude00 \\ud83d"}]}', Prompt, "here")
    assert fields.messages[0].content == "😀 \\ud83d"


def line_of(id_: str, content: str = "Hi") -> str:
    return json.dumps(PROMPT | {"id": id_, "messages": [{"role": "user", "content": content}]}, ensure_ascii=False)


def test_separators_inside_a_text_do_not_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    odd = "one\u2028two\x85three\x0cfour\r\nfive"
    path.write_bytes(f"{line_of('a', odd)}\n{line_of('b')}\n".encode())
    assert [(p.id, p.messages[0].content) for p in read_jsonl(path, Prompt)] == [("a", odd), ("b", "Hi")]


def test_blank_lines_windows_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(f"\ufeff{line_of('a')}\r\n\r\n  \n{line_of('b')}".encode())
    assert [p.id for p in iter_jsonl(path, Prompt)] == ["a", "b"]
    path.write_bytes(b"")
    assert read_jsonl(path, Prompt) == []


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (b"{", "not a JSON object (Expecting property name enclosed in double quotes, column 2); mend or drop the line"),
        (b'{"id": "\xff"}', "is not UTF-8 (invalid start byte); save the file as UTF-8"),
        (b'{"id": "\xc3"}', "is not UTF-8 (invalid continuation byte); save the file as UTF-8"),
        (b'{"id": "b"}', "Prompt field 'messages': Field required"),
        (line_of("a").encode(), "id 'a' was already used by record 1 (line 3); ids must be unique"),
    ],
)
@pytest.mark.parametrize("many", [0, 2000])  # with many lines after it the file is read in more than one block
def test_the_number_is_that_of_the_line(tmp_path: Path, bad: bytes, problem: str, many: int) -> None:
    path = tmp_path / "p.jsonl"
    before = [b"", b" ", line_of("a").encode(), line_of("c").encode(), b""]
    path.write_bytes(b"\n".join([*before, bad, *(line_of(f"n{i}").encode() for i in range(many))]))
    with pytest.raises(RecordError) as caught:
        read_jsonl(path, Prompt, unique="id")
    assert str(caught.value) == f"{path}:6: {problem}"


def test_repeated_ids_pass_where_nobody_asks(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"{line_of('a')}\n{line_of('a')}\n")
    assert len(read_jsonl(path, Prompt)) == 2


def test_records_before_a_bad_line_are_given_out(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(line_of("a").encode() + b"\n\xff\n")
    records = iter_jsonl(path, Prompt)
    assert next(records).id == "a"
    with pytest.raises(RecordError, match=r"p\.jsonl:2: is not UTF-8"):
        next(records)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError) as caught:
        read_jsonl(tmp_path / "none.jsonl", Prompt)
    assert str(caught.value) == f"{tmp_path}/none.jsonl: cannot be read (No such file or directory); check the path"
    with pytest.raises(RecordError) as caught:
        read_jsonl(tmp_path, Prompt)
    assert str(caught.value) == f"{tmp_path}: cannot be read (Is a directory); check the path"


def test_by_id() -> None:
    prompts = [Prompt.model_validate(PROMPT | {"id": id_}) for id_ in "ba"]
    assert by_id(prompts) == {"a": prompts[1], "b": prompts[0]}


def modules_after(imports: str) -> set[str]:
    code = f"import sys, {imports}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("imports", "absent"),
    [
        ("heedful", {"torch", "transformers", "peft", "numpy", "scipy", "pydantic", "pandas"}),
        ("heedful.records", {"torch", "transformers", "peft", "numpy", "scipy", "pandas"}),
        (
            "heedful.records, heedful.feedback.settlement, heedful.feedback.simulated, heedful.data.formats, "
            "heedful.data.bundled, heedful.config, heedful.store",
            {"torch", "transformers", "peft", "pandas", "evalica", "sklearn"},
        ),
    ],
)
def test_light_rooms_stay_light(imports: str, absent: set[str]) -> None:
    loaded = modules_after(imports)
    assert "heedful" in loaded
    assert not loaded & absent
