"""From files of records to labels of persons and the texts they are about.

| record | labels |
|---|---|
| Vote | one, of its completion; a person's later vote on it takes the earlier one's place |
| Judgement | one a pair of ranked completions, 1/2 for equal ranks; none with a flagged one; of a prompt the latest counts |
| Preference | one pair with its probability; the person is its field `labeler`, or the one that the command names |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from heedful.data.formats import read_completions, read_preferences, read_prompts
from heedful.errors import DataError, RecordError
from heedful.feedback.consensus import latest
from heedful.persons.features import Text
from heedful.persons.labels import Label
from heedful.records import Judgement, Preference, Prompt, Vote, by_id, iter_lines, parse_line, read_jsonl


@dataclass(frozen=True)
class Files:
    """What a command was given. person: whose pairs without a labeler are."""

    votes: Sequence[Path] = ()
    judgements: Sequence[Path] = ()
    preferences: Sequence[Path] = ()
    prompts: Sequence[Path] = ()
    completions: Sequence[Path] = ()
    person: str = ""


@dataclass
class Said:
    """labels in the order of the files, and the texts they name by id."""

    labels: list[Label] = field(default_factory=list)
    texts: dict[str, Text] = field(default_factory=dict)

    def add(self, text: Text, where: str) -> str:
        known = self.texts.setdefault(text.id, text)
        if (known.messages, known.text) != (text.messages, text.text):
            raise DataError(f"{where}: completion {text.id!r} has another text than before under this id; ids must be unique")
        return text.id


def pair(person: str, first: str, second: str, value: float) -> Label:
    """A label with its texts in the order of their ids, so that both answers occur among a person's pairs."""
    return Label(person, first, second, value) if first <= second else Label(person, second, first, 1 - value)


def read_texts(prompts: Sequence[Path], completions: Sequence[Path]) -> dict[str, Text]:
    """Completions with their prompts by id. Raises DataError for one without its prompt."""
    known: dict[str, Prompt] = {}
    for file in prompts:
        known |= by_id(read_prompts(file))
    found: dict[str, Text] = {}
    for file in completions:
        for record in read_completions(file):
            if record.prompt_id not in known:
                names = ", ".join(map(str, prompts))
                raise DataError(
                    f"{file}: completion {record.id!r} answers prompt {record.prompt_id!r}, which is not in {names}"
                )
            if record.id in found:
                raise DataError(f"{file}: id {record.id!r} was already used; ids must be unique over all files")
            messages = known[record.prompt_id].messages
            found[record.id] = Text(record.id, record.prompt_id, messages, record.text, record.finish == "stop")
    return found


def read_said(files: Files) -> Said:
    """All labels of the files. Raises DataError and RecordError, naming the file and the line."""
    if (files.votes or files.judgements) and not (files.prompts and files.completions):
        raise DataError("votes and judgements name completions by id; give --prompts and --completions with them")
    said = Said(texts=read_texts(files.prompts, files.completions))
    for label in (*_votes(files, said), *_judgements(files, said), *_preferences(files, said)):
        said.labels.append(label)
    if not said.labels:
        names = ", ".join(map(str, (*files.votes, *files.judgements, *files.preferences))) or "no file was given"
        raise DataError(f"there is no label to learn from ({names}); give --votes, --judgements or --preferences")
    used = {name for label in said.labels for name in label[1:3]}
    said.texts = {id_: text for id_, text in said.texts.items() if id_ in used}
    return said


def _votes(files: Files, said: Said) -> Iterable[Label]:
    last: dict[tuple[str, str], Label] = {}
    for file in files.votes:
        for where, line in iter_lines(file):
            vote = parse_line(line, Vote, where)
            if vote.completion_id not in said.texts:
                raise RecordError(
                    where, f"completion_id {vote.completion_id!r} is in no file of completions; add it or drop the line"
                )
            last[vote.labeler, vote.completion_id] = Label(vote.labeler, vote.completion_id, None, float(vote.value))
    return last.values()


def _judgements(files: Files, said: Said) -> Iterable[Label]:
    for file in files.judgements:
        for prompt_id, found in latest(read_jsonl(file, Judgement, unique="id")).items():
            for judgement in found:
                for id_ in judgement.ranks:
                    if id_ not in said.texts or said.texts[id_].prompt_id != prompt_id:
                        raise DataError(
                            f"{file}: judgement {judgement.id!r} ranks {id_!r}, which is no completion of prompt {prompt_id!r}"
                        )
                for one, other in combinations(sorted(judgement.ranks), 2):
                    ranks = judgement.ranks[one], judgement.ranks[other]
                    yield pair(judgement.labeler, one, other, 0.5 if ranks[0] == ranks[1] else float(ranks[0] < ranks[1]))


def _preferences(files: Files, said: Said) -> Iterable[Label]:
    for file in files.preferences:
        for number, record in enumerate(read_preferences(file), start=1):
            where = f"{file}: pair {number}"
            person = (record.model_extra or {}).get("labeler") or files.person
            if not isinstance(person, str) or not person:
                raise DataError(
                    f"{where}: field 'labeler': expected the person who chose, found {person!r}; add it, or name one with "
                    "--person"
                )
            if record.chosen == record.rejected:
                continue
            ids = [
                said.add(Text(id_ or text_id(record, text), record.prompt_id, record.prompt, text), where)
                for id_, text in ((record.chosen_id, record.chosen), (record.rejected_id, record.rejected))
            ]
            yield pair(person, ids[0], ids[1], record.probability)


def text_id(record: Preference, text: str) -> str:
    """The id of an answer that has none: the same for the same answer to the same prompt."""
    return "t-" + hashlib.sha256(f"{record.prompt_id}\n{text}".encode()).hexdigest()[:16]


def digest(text: Text) -> str:
    """Tells whether a text is the one that was read before under its id."""
    turns = [f"{message.role}: {message.content}" for message in text.messages]
    return hashlib.sha256("\n".join([*turns, text.text]).encode()).hexdigest()[:16]
