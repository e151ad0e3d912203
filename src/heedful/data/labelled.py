"""Texts that people put into classes, from JSONL or CSV, for reward models that are classifiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heedful.data.rows import rows
from heedful.errors import DataError, RecordError

REST = "other"


@dataclass(frozen=True)
class Labelled:
    """A text with its label. prompt: what it answers, "" for a text that stands alone."""

    text: str
    label: str
    prompt: str = ""


def read_labelled(path: Path, *, text_field: str, label_field: str, prompt_field: str = "") -> list[Labelled]:
    """The texts of a .jsonl, .json or .csv file, packed with gzip or not. Labels may be text, whole numbers or true and false.

    Raises RecordError naming file, line and field.
    """
    found = []
    for where, row in rows(path):
        fields = [text_field, label_field, *([prompt_field] if prompt_field else [])]
        for name in fields:
            if name not in row:
                raise RecordError(where, f"there is no field {name!r}; there are: {', '.join(map(str, row))}")
        label = row[label_field]
        if isinstance(label, bool):
            label = str(label).lower()
        if not isinstance(label, str | int) or str(label).strip() == "":
            raise RecordError(where, f"field {label_field!r}: expected a label as text or whole number, found {label!r}")
        texts = [row[name] for name in (text_field, *fields[2:])]
        for name, text in zip((text_field, *fields[2:]), texts, strict=True):
            if not isinstance(text, str):
                raise RecordError(where, f"field {name!r}: expected text, found {text!r}")
        found.append(Labelled(texts[0], str(label).strip(), texts[1] if prompt_field else ""))
    return found


def two_classes(examples: Sequence[Labelled], wanted: str) -> tuple[list[Labelled], tuple[str, str]]:
    """The same texts in two classes, and their names: the wanted label, and the other one (or "other" for all of several).

    Raises DataError listing the labels when the wanted one is not among them or is the only one.
    """
    counts = Counter(example.label for example in examples)
    others = [label for label in counts if label != wanted]
    if wanted not in counts or not others:
        listed = ", ".join(f"{label!r} ({count} texts)" for label, count in counts.most_common(20)) or "none"
        problem = f"no text has the wanted label {wanted!r}" if wanted not in counts else f"every text has the label {wanted!r}"
        raise DataError(f"{problem}; a classifier needs two classes. Labels: {listed}. See reward.labelled.wanted")
    rest = others[0] if len(others) == 1 else REST if wanted != REST else f"not {REST}"
    merged = [example if example.label == wanted else Labelled(example.text, rest, example.prompt) for example in examples]
    return merged, (rest, wanted)
