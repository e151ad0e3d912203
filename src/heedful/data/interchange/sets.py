"""What the formats of other tools share: the three sets of records, a report, and records made of foreign values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from heedful.data.interchange.foreign import Fields, as_text, strings
from heedful.errors import DataError, RecordError
from heedful.records import Completion, Judgement, Prompt, parse_fields, to_line

R = TypeVar("R", Prompt, Completion, Judgement)

OURS = "heedful"  # the key under which a file that we wrote carries what its format has no place for
INCOMPLETE = "judgements that leave out an answer of their prompt"
# A completion must say how it was drawn, and other tools do not know; the field `assumed` names what stands here for it.
ASSUMED: Fields = {
    "model": "unknown",
    "finish": "stop",
    "sampling": {"temperature": 1.0, "top_p": 1.0, "seed": 0, "max_new_tokens": 1},
}


class Sets(NamedTuple):
    """What travels: prompts, their completions, and the judgements of those."""

    prompts: list[Prompt]
    completions: list[Completion]
    judgements: list[Judgement]


@dataclass(frozen=True)
class Asked:
    """What a file does not say of itself.

    criterion: of judgements that name none. question: the ranking to read where there are several. buckets: Label Studio's
    buckets, best first, where their names are no numbers.
    """

    criterion: str = "helpfulness"
    question: str | None = None
    buckets: tuple[str, ...] = ()


@dataclass
class Report:
    """Counts by reason. left_out: what did not come along. doubts: what did, and should be looked at."""

    left_out: dict[str, int] = field(default_factory=dict)
    doubts: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str, count: int = 1) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + count

    def doubt(self, reason: str, count: int = 1) -> None:
        self.doubts[reason] = self.doubts.get(reason, 0) + count

    def lines(self) -> list[str]:
        """One for each reason, for people to read."""
        left_out = [f"left out {count}: {reason}" for reason, count in self.left_out.items()]
        return left_out + [f"look at {count}: {reason}" for reason, count in self.doubts.items()]


# Writing


class Group(NamedTuple):
    """A prompt with its completions and judgements, each in the order of its set."""

    prompt: Prompt
    answers: list[Completion]
    judgements: list[Judgement]


def groups(sets: Sets) -> list[Group]:
    """What belongs together. Raises DataError when records do not fit each other or cannot be stored as text."""
    found: dict[str, Group] = {}
    for prompt in sets.prompts:
        _refuse_repeated(prompt, found)
        found[prompt.id] = Group(prompt, [], [])
    asked_by: dict[str, str] = {}
    for answer in sets.completions:
        _refuse_repeated(answer, asked_by)
        asked_by[answer.id] = answer.prompt_id
        if answer.prompt_id not in found:
            raise DataError(f"completion {answer.id!r} answers prompt {answer.prompt_id!r}, which is not there; {_SAME_RUN}")
        found[answer.prompt_id].answers.append(answer)
    judged: dict[str, Judgement] = {}
    for judgement in sets.judgements:
        _refuse_repeated(judgement, judged)
        judged[judgement.id] = judgement
        if judgement.prompt_id not in found:
            raise DataError(f"judgement {judgement.id!r} is of prompt {judgement.prompt_id!r}, which is not there; {_SAME_RUN}")
        for id_ in (*judgement.ranks, *judgement.flagged):
            if asked_by.get(id_) != judgement.prompt_id:
                raise DataError(
                    f"judgement {judgement.id!r} names completion {id_!r}, which is no answer to prompt "
                    f"{judgement.prompt_id!r}; {_SAME_RUN}"
                )
        found[judgement.prompt_id].judgements.append(judgement)
    records: list[Prompt | Completion | Judgement] = [*sets.prompts, *sets.completions, *sets.judgements]
    for record in records:
        if any("\0" in text for text in strings(to_fields(record))):
            raise DataError(f"{record.id!r} holds a NUL character, which no database stores as text; take it out")
    return list(found.values())


_SAME_RUN = "take all files from the same run"


def _refuse_repeated(record: Prompt | Completion | Judgement, known: dict[str, Any]) -> None:
    if record.id in known:
        raise DataError(f"{type(record).__name__} id {record.id!r} occurs twice; ids must be unique")


def judges_all(judgement: Judgement, answers: list[Completion]) -> bool:
    """Whether each of the prompt's completions is ranked or flagged, which other tools ask for."""
    return {*judgement.ranks, *judgement.flagged} == {answer.id for answer in answers}


def ranks_that_fit(judgement: Judgement, answers: list[Completion], report: Report) -> dict[str, int]:
    """The ranks, renumbered without gaps where they go beyond the number of answers, which other tools have no place for."""
    if not judgement.ranks or max(judgement.ranks.values()) <= len(answers):
        return judgement.ranks
    report.doubt("rankings with ranks beyond the number of answers: renumbered without gaps")
    used = sorted(set(judgement.ranks.values()))
    return {id_: used.index(rank) + 1 for id_, rank in judgement.ranks.items()}


def to_fields(record: BaseModel, *without: str) -> Fields:
    """A record as a JSON object, unknown fields included, but for some."""
    return {name: value for name, value in json.loads(to_line(record)).items() if name not in without}


def is_one_question(prompt: Prompt) -> bool:
    """Whether a prompt is a single message of the user, so that its text alone says it."""
    return len(prompt.messages) == 1 and prompt.messages[0].role == "user"


def transcript(prompt: Prompt) -> str:
    """A prompt as text for people to read."""
    if is_one_question(prompt):
        return prompt.messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt.messages)


# Reading


def add(known: dict[str, R], record: R, where: str) -> None:
    """Puts a record under its id. Raises RecordError when the id is taken."""
    if record.id in known:
        raise RecordError(where, f"{type(record).__name__} id {record.id!r} was already used; ids must be unique in the file")
    known[record.id] = record


def completion(fields: Fields, where: str, report: Report) -> Completion:
    """A completion from a file that may not say how it was drawn."""
    assumed = [name for name in ASSUMED if name not in fields]
    if assumed:
        names = " and ".join((", ".join(assumed[:-1]), assumed[-1])) if len(assumed) > 1 else assumed[0]
        report.doubt(f"completions of which the file does not say {names}: placeholders, named in their field 'assumed'")
        fields = {**fields, **{name: ASSUMED[name] for name in assumed}, "assumed": assumed}
    return parse_fields(fields, Completion, where)


def judgement(fields: Fields, where: str, report: Report) -> Judgement:
    """A judgement whose order of showing came from us, and whose answers may have been changed since."""
    shown = fields.get("shown_order")
    names = isinstance(shown, list) and all(isinstance(id_, str) for id_ in shown)
    if shown and names and sorted(shown) != sorted((*fields["ranks"], *fields["flagged"])):
        report.doubt("judgements whose order of showing no longer fits what is judged: it is left out")
        fields = {name: value for name, value in fields.items() if name != "shown_order"}
    return parse_fields(fields, Judgement, where)


def moment(value: Any, what: str, where: str, report: Report) -> str:
    """When a judgement was made, "" when the file does not say."""
    if value is None:
        report.doubt("judgements without a time: created_at is empty")
        return ""
    return as_text(value, what, where)
