"""What passes between the labelling server's API and its clients, as JSON; docs/api.md has the addresses.

What is sent is strict: a field that does not exist is an error and not ignored. What comes back may gain fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from heedful.records import Completion, Judgement, LabelerQuality, Prompt, Several

Mode = Literal["rank", "thumbs", "versus"]
MOST_JUDGEMENTS, MOST_SETS = 5_000, 500  # of a page


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no database stores as text; take it out")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]


class Sent(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class NewProject(Sent):
    """Prompts and completions to be judged. overlap: labelers for each set; where adaptive, the most.

    against: in A-or-B mode (versus), the other model's completions. gold: rankings known to be right, to check labelers by.
    """

    name: Text
    prompts: Several[Prompt]
    completions: Several[Completion]
    criterion: Text = "helpfulness"
    mode: Mode = "rank"
    overlap: int = Field(default=3, ge=1, le=50)
    adaptive: bool = False
    against: Several[Completion] | None = None
    gold: Several[Judgement] = ()

    @model_validator(mode="after")
    def _each_id_once(self) -> Self:
        _once("prompts", self.prompts)
        _once("completions", self.completions)
        _once("against", self.against or ())
        return self


def _once(field: str, records: Sequence[Prompt | Completion]) -> None:
    for id_, count in Counter(record.id for record in records).most_common(1):
        if count > 1:
            raise ValueError(f"{field} holds the id {id_!r} {count} times; ids must be unique")


class Paused(Sent):
    """Whether a project hands sets out."""

    paused: bool


class Counted(Sent):
    """Whether a labeler's judgements count."""

    counted: bool


class Told(BaseModel):
    """The body of a reply."""

    model_config = ConfigDict(frozen=True)


class Project(Told):
    """slug: the project's name in addresses. role: what the token's owner is in it."""

    slug: str
    name: str
    criterion: str
    mode: str
    overlap: int
    adaptive: bool
    paused: bool
    role: Literal["admin", "manager", "labeler"]


class Standing(Told):
    """How far a project is, in judgements. sets: that have all theirs, of how many; gold sets aside."""

    judgements: int
    wanted: int
    finished_sets: int
    sets: int


class ProjectDetail(Project):
    """num_identical: prompts left out because all their completions say the same."""

    standing: Standing
    num_identical: int


class Invitation(Told):
    """A link for one person."""

    link: str
    valid_days: int


class LabelledSet(Told):
    """A prompt and its completions. gold: the ranks known to be right. wanted: judgements, none of a gold set."""

    id: int
    prompt: Prompt
    completions: list[Completion]
    gold: dict[str, int] | None
    wanted: int


class SetsPage(Told):
    """after: what to ask for the next page with; None on the last."""

    sets: list[LabelledSet]
    after: int | None


class Labeler(Told):
    """judgements: of this project. counted: False where they have been left out."""

    name: str
    judgements: int
    counted: bool


class Quality(Told):
    """The numbers of the project's quality page. agreement: of heedful.feedback.labelers.agreement.

    gold: by labeler, pairs of gold sets that are in the known order, and of how many. num_clear: of num_settled prompts, those
    with one best order. versus: in A-or-B mode, which model is the better one.
    """

    agreement: dict[str, Any]
    labelers: list[LabelerQuality]
    gold: dict[str, tuple[int, int]]
    num_clear: int
    num_settled: int
    versus: dict[str, Any] | None


class Problem(Told):
    """Why a request was not done."""

    detail: str
