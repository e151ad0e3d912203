"""What people say of answers while they talk to a policy, as records: thumbs as votes, corrections as judgements.

A folder of four files, which `heedful chat` adds to, `heedful label export-chat` writes and `heedful update` reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from heedful.errors import DataError
from heedful.journal import Journal
from heedful.records import Completion, Judgement, Message, Preference, Prompt, Record, Sampling, Vote, by_id, read_jsonl
from heedful.store import write_jsonl

FOLDER = "feedback"  # in a run directory
TAG = "chat"
CORRECTION = "correction"  # as criterion, and in the id of what was written
PERSON = "person"  # who wrote a correction, in the place of a model's name


class Opinions(NamedTuple):
    """votes: on completions. judgements: corrections, each above the answer that it corrects."""

    prompts: list[Prompt]
    completions: list[Completion]
    votes: list[Vote]
    judgements: list[Judgement]


KINDS: dict[str, type[Record]] = {"prompts": Prompt, "completions": Completion, "votes": Vote, "judgements": Judgement}


def read_opinions(folder: Path) -> Opinions:
    """Of a folder; a file that is not there holds nothing. Raises RecordError, DataError for a folder without any."""
    if not any((folder / f"{name}.jsonl").is_file() for name in KINDS):
        raise DataError(f"{folder}: holds no feedback (prompts.jsonl, completions.jsonl, votes.jsonl, judgements.jsonl)")
    found: dict[str, Any] = {
        name: read_jsonl(folder / f"{name}.jsonl", kind) if (folder / f"{name}.jsonl").is_file() else []
        for name, kind in KINDS.items()
    }
    return Opinions(**found)


def write_opinions(folder: Path, opinions: Opinions) -> None:
    """Replaces the four files."""
    for name, records in opinions._asdict().items():
        write_jsonl(folder / f"{name}.jsonl", records)


def add_opinions(folder: Path, opinions: Opinions) -> None:
    """Adds to the four files what their ids do not hold yet; votes are always added, for the latest one of a person counts."""
    for name, kind in KINDS.items():
        journal = Journal(folder / f"{name}.jsonl", kind)
        records = getattr(opinions, name)
        known = {getattr(record, "id", None) for record in journal.records} - {None}
        journal.append(record for record in records if getattr(record, "id", None) not in known)


def merged(several: Iterable[Opinions]) -> Opinions:
    """All of them. Of a person's votes on a completion, and of their corrections of an answer, the latest counts; of records
    of one id the first.
    """
    prompts: dict[str, Prompt] = {}
    completions: dict[str, Completion] = {}
    votes: dict[tuple[str, str], Vote] = {}
    judgements: dict[tuple[str, ...], Judgement] = {}
    for one in several:
        for prompt in one.prompts:
            prompts.setdefault(prompt.id, prompt)
        for completion in one.completions:
            completions.setdefault(completion.id, completion)
        for vote in one.votes:
            key = (vote.labeler, vote.completion_id)
            if key not in votes or votes[key].created_at <= vote.created_at:
                votes[key] = vote
        for judgement in one.judgements:
            about = _about(judgement)
            if about not in judgements or (len(about) > 1 and judgements[about].created_at <= judgement.created_at):
                judgements[about] = judgement
    return Opinions(list(prompts.values()), list(completions.values()), list(votes.values()), list(judgements.values()))


def _about(judgement: Judgement) -> tuple[str, ...]:
    """What a later judgement takes the place of: of a correction who corrected which answer, else its id."""
    if judgement.criterion != CORRECTION or not judgement.ranks:
        return (judgement.id,)
    worst = max(judgement.ranks.values())
    return (judgement.labeler, *sorted(id_ for id_, rank in judgement.ranks.items() if rank == worst))


def without(opinions: Opinions, known: Opinions) -> Opinions:
    """Votes and judgements that are not among the known ones, with the prompts and completions that they are about.

    A correction that says again what the known one says is known, whenever it was made.
    """
    had = {(vote.labeler, vote.completion_id, vote.value) for vote in known.votes}
    votes = [vote for vote in opinions.votes if (vote.labeler, vote.completion_id, vote.value) not in had]
    heard = {_said_in(judgement) for judgement in known.judgements}
    judgements = [judgement for judgement in opinions.judgements if _said_in(judgement) not in heard]
    return _whole(opinions, votes, judgements)


def _said_in(judgement: Judgement) -> tuple[str, ...]:
    """What tells a judgement from another one: of a correction who wrote what above which answer, else its id."""
    about = _about(judgement)
    return about if len(about) == 1 else (*about, *sorted(judgement.ranks))


def _whole(opinions: Opinions, votes: list[Vote], judgements: list[Judgement]) -> Opinions:
    """These votes and judgements of the opinions, with what they are about."""
    named = named_in(votes, judgements)
    completions = [completion for completion in opinions.completions if completion.id in named]
    asked = {completion.prompt_id for completion in completions} | {one.prompt_id for one in judgements}
    return Opinions([prompt for prompt in opinions.prompts if prompt.id in asked], completions, votes, judgements)


def named_in(votes: Iterable[Vote], judgements: Iterable[Judgement]) -> set[str]:
    """Ids of the completions that they speak of."""
    return {vote.completion_id for vote in votes} | {id_ for one in judgements for id_ in (*one.ranks, *one.flagged)}


def require_whole(opinions: Opinions, where: str) -> None:
    """Raises DataError for a vote or a judgement of what is not there."""
    completions = {completion.id: completion for completion in opinions.completions}
    prompts = {prompt.id for prompt in opinions.prompts}
    named = [(f"a vote of {vote.labeler!r}", vote.completion_id) for vote in opinions.votes]
    named += [(f"judgement {one.id!r}", id_) for one in opinions.judgements for id_ in (*one.ranks, *one.flagged)]
    for who, id_ in named:
        if id_ not in completions:
            raise DataError(
                f"{where}: {who} names completion {id_!r}, which is not in completions.jsonl; add it or drop the line"
            )
        if completions[id_].prompt_id not in prompts:
            raise DataError(
                f"{where}: completion {id_!r} answers prompt {completions[id_].prompt_id!r}, which is not in prompts.jsonl; "
                "add the prompt or drop the line"
            )


# As marks


def tally(opinions: Opinions) -> dict[str, int]:
    """By completion, how many people say it is good less how many say it is bad; each person's latest opinion counts.

    A correction is good, and what it corrects bad: it takes the place of the person's own earlier thumb.
    """
    latest: dict[tuple[str, str], tuple[str, int]] = {}

    def hear(labeler: str, id_: str, at: str, value: int) -> None:
        if at >= latest.get((labeler, id_), ("", 0))[0]:
            latest[labeler, id_] = at, value

    for vote in opinions.votes:
        hear(vote.labeler, vote.completion_id, vote.created_at, 1 if vote.value else -1)
    for one in opinions.judgements:
        best, worst = (function(one.ranks.values(), default=0) for function in (min, max))
        for id_, rank in one.ranks.items():
            if best < worst and rank in (best, worst):
                hear(one.labeler, id_, one.created_at, 1 if rank == best else -1)
        for id_ in one.flagged:
            hear(one.labeler, id_, one.created_at, -1)
    found: dict[str, int] = {}
    for (_, id_), (_, value) in latest.items():
        found[id_] = found.get(id_, 0) + value
    return found


# As pairs


def paired(new: Opinions, pairs: Iterable[Preference]) -> Opinions:
    """Of what is new the votes and judgements that these pairs came from; the rest taught nothing."""
    made = {(pair.chosen_id, pair.rejected_id) for pair in pairs}
    of = {id_ for ids in made for id_ in ids}
    votes = [vote for vote in new.votes if vote.completion_id in of]
    judgements = [one for one in new.judgements if any(ids in made for ids in product(one.ranks, one.ranks))]
    return _whole(new, votes, judgements)


def preferences_of(opinions: Opinions) -> list[Preference]:
    """Corrections above what they correct, then thumbs up above thumbs down of one prompt.

    Equal texts make no pair, and neither do completions of one rank.
    """
    completions = {completion.id: completion for completion in opinions.completions}
    found: dict[tuple[str, str], Preference] = {}
    for judgement in opinions.judgements:
        ranked = judgement.ranks.items()
        for (better, first), (worse, second) in product(ranked, ranked):
            if first < second:
                _add(found, opinions, completions[better], completions[worse])
    thumbs = tally(opinions._replace(judgements=[]))
    up, down = ([id_ for id_, count in thumbs.items() if count * sign > 0] for sign in (1, -1))
    for better, worse in product(up, down):
        if completions[better].prompt_id == completions[worse].prompt_id:
            _add(found, opinions, completions[better], completions[worse])
    return list(found.values())


def _add(found: dict[tuple[str, str], Preference], opinions: Opinions, better: Completion, worse: Completion) -> None:
    if better.text == worse.text:
        return
    messages = by_id(opinions.prompts)[better.prompt_id].messages
    found.setdefault(
        (better.id, worse.id),
        Preference(
            prompt_id=better.prompt_id,
            prompt=messages,
            chosen=better.text,
            rejected=worse.text,
            chosen_id=better.id,
            rejected_id=worse.id,
            source="human",
        ),
    )


# Of one answer


def spoken(turn_id: str, messages: Sequence[Message]) -> Prompt:
    """What was said up to an answer."""
    return Prompt(id=turn_id, messages=tuple(messages), tags=(TAG,))


def voted(answer: Completion, labeler: str, value: int, created_at: str) -> Vote:
    """value: 1 up, 0 down."""
    fields = {"completion_id": answer.id, "prompt_id": answer.prompt_id, "labeler": labeler, "value": value}
    return Vote.model_validate(fields | {"created_at": created_at})


def corrected(answer: Completion, text: str, labeler: str, created_at: str) -> tuple[Completion, Judgement]:
    """What the answer should have been, as a completion, and the judgement that puts it above the answer.

    The same words, said again after others, are the same completion and another judgement: of two the later one counts.
    """
    own = Completion(
        id=f"{answer.prompt_id}/{CORRECTION}-{labeler}-{hashlib.sha256(text.encode()).hexdigest()[:8]}",
        prompt_id=answer.prompt_id,
        text=text,
        model=PERSON,
        finish="stop",
        sampling=Sampling(temperature=0, top_p=1, seed=0, max_new_tokens=answer.sampling.max_new_tokens),
    )
    judgement = Judgement(
        id=f"{own.id}/{created_at}",
        prompt_id=answer.prompt_id,
        labeler=labeler,
        source="human",
        criterion=CORRECTION,
        ranks={own.id: 1, answer.id: 2},
        shown_order=(answer.id, own.id),
        created_at=created_at,
    )
    return own, judgement
