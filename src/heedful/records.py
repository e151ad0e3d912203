"""The records that cross stages, and their JSONL codec.

One object a line, UTF-8. Unknown fields are kept and written back. A bad line is a `RecordError` that names
file, line, field and what was expected.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from heedful.errors import RecordError

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")

NonEmpty = Annotated[str, Field(min_length=1)]
Several = Annotated[tuple[T, ...], Strict(False)]  # JSON's arrays arrive as lists


class Record(BaseModel):
    """A frozen record; fields it does not know stay with it (`model_extra`)."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)  # "2" and true are no ranks


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


Messages = Annotated[Several[Message], Field(min_length=1)]


class Prompt(Record):
    """What a model is asked: a conversation that ends before the answer."""

    id: NonEmpty
    messages: Messages
    split: Literal["train", "heldout"] | None = None
    tags: Several[str] = ()


class Sampling(BaseModel):
    """How a completion was drawn. max_new_tokens counts the end-of-text token."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

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
    flagged: Several[str] = ()
    shown_order: Several[str] = ()
    seconds: float | None = Field(default=None, ge=0)
    created_at: str
    note: str | None = None

    @model_validator(mode="after")
    def _each_completion_once(self) -> Self:
        both = set(self.ranks) & set(self.flagged)
        if both:
            raise ValueError(f"completion {min(both)!r} is both ranked and flagged; keep one of the two")
        if len(set(self.flagged)) < len(self.flagged):
            raise ValueError("flagged holds a completion twice; name each once")
        if self.shown_order and sorted(self.shown_order) != sorted((*self.ranks, *self.flagged)):
            raise ValueError("shown_order must hold exactly the ranked and the flagged completions, each once")
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
    """What is known of one labeler; None where there is too little to tell. `docs/consensus.md` explains each field.

    Leave one out. agreement: share of decided pairs on which the labeler and the others' consensus agree. z: of Kendall's S
    summed over prompts, against "clicks at random"; large is evidence of skill. p: that a labeler as good as the others agrees
    this little; small is evidence of carelessness. q: p after Benjamini-Hochberg over the labelers. suspect: q below 0.05.
    reliability: mean tau with the others' consensus, 0 to 1.

    Over all prompts, by Bradley and Terry. discrimination: 1 for a typical labeler, near 0 for clicks at random and for who
    turns the scale round. bradley_terry_reliability: expected tau with the true order, 0 to 1. random_click_probability: for
    those with 30 votes or more.

    Habits. self_consistency: share of num_repeated_pairs, of sets judged twice, decided alike, with its 95% interval.
    position_lean: 1 for ranks exactly as shown, 0 for none, -1 the other way round; position_q: of its test. median_seconds: a
    judgement; seconds_ratio: to the others' on the same prompts; too_fast_share: of judgements too fast to have read.

    verdict: in words; reasons: why, with figures. Nothing follows from them by itself.
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
    reasons: Several[str] = ()
    discrimination: float | None = None
    bradley_terry_reliability: float | None = None
    random_click_probability: float | None = None
    self_consistency: float | None = None
    self_consistency_low: float | None = None
    self_consistency_high: float | None = None
    num_repeated_pairs: int = 0
    position_lean: float | None = None
    position_q: float | None = None
    median_seconds: float | None = None
    seconds_ratio: float | None = None
    too_fast_share: float | None = None


def to_line(record: BaseModel) -> str:
    """One JSON object without line breaks; of the fields we know, those that are None are left out."""
    fields = record.model_dump(mode="json", exclude_none=True)
    fields |= dict.fromkeys(name for name, value in (record.model_extra or {}).items() if value is None)
    return json.dumps(fields, ensure_ascii=False)


def parse_line(line: str, kind: type[R], where: str) -> R:
    """The record in one line. where: "file:line" for the message of a RecordError."""
    return parse_fields(parse_object(line, where), kind, where)


def parse_object(line: str, where: str) -> dict[str, Any]:
    """The JSON object in one line, or a RecordError. What we could not write back is refused: NaN, half a surrogate pair."""
    try:
        fields = json.loads(line, parse_constant=_no_constant)
        if "\\ud" in line.lower():
            json.dumps(fields, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise RecordError(where, f"not a JSON object ({error.msg}, column {error.colno}); mend or drop the line") from None
    except UnicodeEncodeError:
        raise RecordError(where, "not a JSON object (half of a surrogate pair); mend or drop the line") from None
    except RecursionError:
        raise RecordError(where, "not a JSON object (nested too deeply); mend or drop the line") from None
    except ValueError as error:  # a number of too many digits, NaN
        raise RecordError(where, f"not a JSON object ({str(error).split(';')[0]}); mend or drop the line") from None
    if not isinstance(fields, dict):
        raise RecordError(where, f"expected a JSON object, found {type(fields).__name__}; mend or drop the line")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def parse_fields(fields: dict[str, Any], kind: type[R], where: str) -> R:
    """The record in a dictionary, or a RecordError that names the field and what was expected."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # it lies between fields, which the message names
            raise RecordError(where, f"{kind.__name__}: {message}") from None
        field = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] == "missing" else f", found {_short(first['input'])}"
        raise RecordError(where, f"{kind.__name__} field '{field}': {message}{found}") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def iter_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a file in order; blank lines are passed over. Raises RecordError."""
    for where, line in iter_lines(path):
        yield parse_line(line, kind, where)


def iter_lines(path: Path, opener: Callable[[Path, str], Any] = open) -> Iterator[tuple[str, str]]:
    """("file:line", text) of each line that is not blank. opener: gzip.open for a packed file. Raises RecordError.

    Lines are decoded one by one, so that the line named is the one that is not UTF-8; a text file decodes ahead.
    """
    try:
        with opener(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                where = f"{path}:{number}"
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise RecordError(where, f"is not UTF-8 ({error.reason}); save the file as UTF-8") from None
                if line.strip():
                    yield where, line.rstrip("\r\n")  # else an error at the end is said to lie in column 1
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(str(path), f"cannot be read ({getattr(error, 'strerror', None) or error}); check the path") from None


def read_jsonl(path: Path, kind: type[R], *, unique: str | None = None) -> list[R]:
    """All records of a file. unique: a field whose values may not repeat, usually "id"."""
    records: list[R] = []
    used_by: dict[Any, str] = {}
    for where, line in iter_lines(path):
        record = parse_line(line, kind, where)
        if unique is not None:
            value = getattr(record, unique)
            if value in used_by:
                raise RecordError(where, f"{unique} {value!r} was already used by {used_by[value]}; ids must be unique")
            used_by[value] = f"record {len(records) + 1} (line {where.rpartition(':')[2]})"
        records.append(record)
    return records


def by_id(records: Iterable[Prompt]) -> dict[str, Prompt]:
    """Prompts under their ids."""
    return {record.id: record for record in records}
