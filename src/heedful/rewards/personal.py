"""The reward of a person, or of a group, out of a folder of `heedful persons fit`: FOLDER#PERSON or FOLDER#PERSON,PERSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from heedful.config import PERSONS, RewardTermSection, split_persons
from heedful.errors import ConfigError
from heedful.models.policy import LanguageModel
from heedful.models.reward import Answer
from heedful.persons.enough import require_enough
from heedful.persons.features import Text, is_file, open_reader
from heedful.persons.folder import Kept, load, require_person
from heedful.persons.optimising import wishes_of
from heedful.rewards.function import function_place
from heedful.rewards.mixture import ENSEMBLE
from heedful.team import once, team

MARK = "#"  # between the folder and the names


def personal_place(source: str) -> tuple[Path, str] | None:
    """The folder and the names that a source means; None where it means something else. Loads nothing."""
    if MARK not in source or "://" in source or source.startswith(ENSEMBLE) or function_place(source):
        return None
    if Path(source).expanduser().is_dir():
        return None
    folder, names = split_persons(source)
    return Path(folder).expanduser(), names


def is_of_persons(source: str) -> bool:
    """Whether it is a folder of persons without a name behind it."""
    return (Path(source).expanduser() / PERSONS).is_file()


class PersonalTerm:
    """Reads the features of answers and gives the persons' reward, in logits; docs/methods/personalisation.md.

    base: the policy's model, whose trunk is read without adapter where the features are its own. measured: unsafe_answers, the
    share of the last answers that a safety head held to be unsafe; nothing where there is no head.
    """

    measured: dict[str, float]

    def __init__(self, kept: Kept, persons: tuple[str, ...], base: LanguageModel | None) -> None:
        self.wishes = wishes_of(kept, persons)
        self.read = open_reader(kept.source, kept.reads, base=base)
        self.guarded = bool(kept.model.heads.safety.names)
        self.measured = {}

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        if not answers:
            return []
        rewards, share = once(lambda: self._judge(answers), "personal rewards")
        self.measured = {"unsafe_answers": share} if self.guarded else {}
        return rewards

    def _judge(self, answers: Sequence[Answer]) -> tuple[list[float], float]:
        texts = [Text("", "", answer.messages, answer.text, answer.finished) for answer in answers]
        rewards_T, unsafe_T = self.wishes.rewards(self.read(texts))
        return rewards_T.tolist(), float(unsafe_T.mean())


def personal_reward(term: RewardTermSection, base: LanguageModel | None) -> PersonalTerm:
    """Raises StoreError for a folder without persons, DataError for a stranger, ConfigError for a negative weight."""
    kept, persons = _opened(term)
    found = PersonalTerm(kept, persons, base)
    if not found.guarded and team().rank == 0:
        print(
            f"{term.source}: no safety head is in force, so no wish is held back; for one, fit the persons anew with "
            "--safety-votes or --safety-preferences of 'heedful persons fit'",
            file=sys.stderr,
        )
    return found


def require_known_persons(terms: Sequence[RewardTermSection]) -> None:
    """Raises, before anything is trained for them, where persons are not known, or not well enough to be optimised for."""
    for term in terms:
        if personal_place(term.source) is None:
            continue
        kept, persons = _opened(term)
        if is_file(kept.source):
            open_reader(kept.source, kept.reads)  # which says why it cannot
        count = sum(record.person in persons and record.value != 0.5 for record in kept.labels)
        require_enough(persons, count, "decided labels", term.min_labels)


def _opened(term: RewardTermSection) -> tuple[Kept, tuple[str, ...]]:
    place = personal_place(term.source)
    assert place is not None
    if term.weight < 0:
        raise ConfigError(
            f"reward.terms: {term.source!r} with weight {term.weight:g} would turn the safety heads round as well; weights of "
            "personal rewards are above 0"
        )
    folder, said = place
    kept = load(folder)
    persons = (said,) if said in kept.model.persons else tuple(dict.fromkeys(name.strip() for name in said.split(",")))
    for person in persons:
        require_person(kept, person)
    return kept, persons
