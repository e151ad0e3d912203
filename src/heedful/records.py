"""The records that cross stages, and their JSONL codec.

One object a line, UTF-8. Unknown fields are kept and written back. A bad line is a `RecordError` that names
file, line, field and what was expected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from heedful.errors import RecordError

NonEmpty = Annotated[str, Field(min_length=1)]


class Record(BaseModel):
    """A frozen record; fields it does not know stay with it (`model_extra`)."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=False)


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


Messages = Annotated[tuple[Message, ...], Field(min_length=1)]


class Prompt(Record):
    """What a model is asked: a conversation that ends before the answer."""

    id: NonEmpty
    messages: Messages
    split: Literal["train", "heldout"] | None = None
    tags: tuple[str, ...] = ()


class Sampling(BaseModel):
    """How a completion was drawn. max_new_tokens counts the end-of-text token."""

    model_config = ConfigDict(frozen=True, extra="allow")

    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    seed: int
    max_new_tokens: int = Field(ge=1)


class Completion(Record):
    """A model's answer to a prompt. finish: "stop" when the model ended it, "length" when the limit did."""

    id: NonEmpty
    prompt_id: NonEmpty
    text: str
    model: str
    policy_version: str | None = None
    finish: Literal["stop", "length"]
    sampling: Sampling


class Judgement(Record):
    """One labeler's ranking of the completions of one prompt: rank 1 is best, equal ranks are a tie.

    A flagged completion (nonsensical, confusing, irrelevant) has no rank.
    """

    id: NonEmpty
    prompt_id: NonEmpty
    labeler: NonEmpty
    source: Literal["human", "ai", "simulated"]
    criterion: str
    ranks: dict[str, Annotated[int, Field(ge=1)]]
    flagged: tuple[str, ...] = ()
    shown_order: tuple[str, ...] = ()
    seconds: float | None = Field(default=None, ge=0)
    created_at: str
    note: str | None = None

    @model_validator(mode="after")
    def _each_completion_once(self) -> Self:
        both = set(self.ranks) & set(self.flagged)
        if both:
            raise ValueError(f"completion {min(both)!r} is both ranked and flagged; keep one of the two")
        if self.shown_order and set(self.shown_order) != set(self.ranks) | set(self.flagged):
            raise ValueError("shown_order must hold exactly the ranked and the flagged completions")
        return self


class Vote(Record):
    """Thumbs up (1) or down (0) for one completion."""

    completion_id: NonEmpty
    prompt_id: NonEmpty
    labeler: NonEmpty
    value: Literal[0, 1]
    created_at: str


class Preference(Record):
    """A pair, the preferred completion first. probability: that chosen is the better one, 0.5 to 1."""

    prompt_id: NonEmpty
    prompt: Messages
    chosen: str
    rejected: str
    chosen_id: str | None = None
    rejected_id: str | None = None
    probability: float = Field(default=1.0, ge=0.5, le=1)
    margin: float | None = None
    judges: int = Field(default=1, ge=1)
    source: Literal["human", "ai", "simulated", "mixed"] = "human"


class LabelerQuality(Record):
    """What leave-one-out agreement says of one labeler.

    agreement: share of decided pairs on which the labeler and the others' consensus agree, None without such pairs.
    z: of Kendall's S summed over prompts, against "clicks at random"; large is evidence of skill. p: that a labeler as good as
    the others agrees this little; small is evidence of carelessness. q: p after Benjamini-Hochberg over the labelers.
    reliability: mean tau with the others' consensus, 0 to 1. None where there are too few prompts to tell.
    """

    labeler: NonEmpty
    num_judgements: int
    agreement: float | None
    reliability: float
    z: float | None
    p: float | None
    q: float | None
    suspect: bool
    verdict: str


R = TypeVar("R", bound=BaseModel)


def to_line(record: BaseModel) -> str:
    """One JSON object without line breaks; fields that are None are left out."""
    return json.dumps(record.model_dump(mode="json", exclude_none=True), ensure_ascii=False)


def parse_line(line: str, kind: type[R], where: str) -> R:
    """The record in one line. where: "file:line" for the message of a RecordError."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(where, f"not a JSON object ({error.msg}, column {error.colno}); mend or drop the line") from None
    if not isinstance(fields, dict):
        raise RecordError(where, f"expected a JSON object, found {type(fields).__name__}; mend or drop the line")
    return parse_fields(fields, kind, where)


def parse_fields(fields: dict[str, Any], kind: type[R], where: str) -> R:
    """The record in a dictionary, or a RecordError that names the field and what was expected."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        found = "" if first["type"] == "missing" else f", found {_short(first['input'])}"
        message = first["msg"].removeprefix("Value error, ")
        raise RecordError(where, f"{kind.__name__} field '{field}': {message}{found}") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def iter_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a file in order; blank lines are passed over. Raises RecordError."""
    try:
        file = path.open(encoding="utf-8")
    except OSError as error:
        raise RecordError(str(path), f"cannot be read ({error.strerror}); check the path") from None
    with file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield parse_line(line, kind, f"{path}:{number}")
        except UnicodeDecodeError as error:
            raise RecordError(f"{path}:{number + 1}", f"is not UTF-8 ({error.reason}); save the file as UTF-8") from None


def read_jsonl(path: Path, kind: type[R], *, unique: str | None = None) -> list[R]:
    """All records of a file. unique: a field whose values may not repeat, usually "id"."""
    records: list[R] = []
    lines_of: dict[Any, int] = {}
    for number, record in enumerate(iter_jsonl(path, kind), start=1):
        if unique is not None:
            value = getattr(record, unique)
            if value in lines_of:
                raise RecordError(
                    f"{path}: record {number}",
                    f"{unique} {value!r} was already used by record {lines_of[value]}; ids must be unique",
                )
            lines_of[value] = number
        records.append(record)
    return records


def by_id(records: Iterable[Prompt]) -> dict[str, Prompt]:
    """Prompts under their ids."""
    return {record.id: record for record in records}
