"""Labelled texts from JSONL and CSV, packed or not; what is wrong is named with file, line and field."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from heedful.data.labelled import Labelled, read_labelled, two_classes
from heedful.errors import DataError, RecordError

FIELDS = {"text_field": "text", "label_field": "label"}


def test_jsonl_csv_and_gzip_give_the_same(tmp_path: Path) -> None:
    expected = [Labelled("a, b\nc", "kind"), Labelled("ü", "rude")]
    (tmp_path / "a.jsonl").write_text('{"text": "a, b\\nc", "label": "kind", "more": 1}\n\n{"text": "ü", "label": "rude"}\n')
    (tmp_path / "a.csv").write_text('text,label\n"a, b\nc",kind\nü,rude\n', newline="")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    for name in ("a.jsonl", "a.csv", "a.csv.gz", "a.jsonl.gz"):
        assert read_labelled(tmp_path / name, **FIELDS) == expected, name


def test_labels_may_be_numbers_and_truth_values_and_texts_may_have_prompts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "Hi", "t": "x", "c": 1}\n{"q": "Ho", "t": "y", "c": true}\n')
    found = read_labelled(tmp_path / "a.jsonl", text_field="t", label_field="c", prompt_field="q")
    assert found == [Labelled("x", "1", "Hi"), Labelled("y", "true", "Ho")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"texts": "x", "label": "a"}', r":2: there is no field 'text'; there are: texts, label"),
        ('{"text": 5, "label": "a"}', r":2: field 'text': expected text, found 5"),
        ('{"text": "x", "label": null}', r":2: field 'label': expected a label as text or whole number, found None"),
        ('{"text": "x", "label": ""}', r":2: field 'label'"),
        ('{"text": "x", "label": 0.5}', r":2: field 'label'"),
        ("no json", r":2: not a JSON object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": "a"}\n' + line + "\n")
    with pytest.raises(RecordError, match=said):
        read_labelled(tmp_path / "a.jsonl", **FIELDS)


def test_a_short_csv_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,a\ny\n")
    with pytest.raises(RecordError, match=r":3: field 'label'"):
        read_labelled(tmp_path / "a.csv", **FIELDS)


def test_all_others_are_one_class() -> None:
    examples = [Labelled(text, label) for text, label in (("a", "good"), ("b", "bad"), ("c", "worse"))]
    merged, labels = two_classes(examples, "good")
    assert labels == ("other", "good")
    assert [example.label for example in merged] == ["good", "other", "other"]
    _, labels = two_classes(examples[:2], "bad")
    assert labels == ("good", "bad"), "of two, the other one keeps its name"


def test_a_wanted_label_that_nobody_gave_lists_those_there_are() -> None:
    examples = [Labelled("a", "good"), Labelled("b", "bad"), Labelled("c", "bad")]
    with pytest.raises(
        DataError, match=r"no text has the wanted label 'great'.* Labels: 'bad' \(2 texts\), 'good' \(1 texts\)"
    ):
        two_classes(examples, "great")
    with pytest.raises(DataError, match="every text has the label 'good'"):
        two_classes(examples[:1], "good")
