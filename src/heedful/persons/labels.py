"""What persons said, as arrays: votes for single texts and pairs of texts, each by one person."""

# P persons, T texts, N labels

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
NONE = -1  # in second_N: the label is a vote


class Label(NamedTuple):
    """One label. second: None for a vote on `first`; value: probability that the vote is 1, or that first is the better one."""

    person: str
    first: str
    second: str | None
    value: float


@dataclass(frozen=True)
class Labels:
    """N labels by P persons on T texts.

    person_N, first_N, second_N: places in `persons` and `texts`; second_N is NONE where the label is a vote. value_N: 0 to 1,
    the probability that the vote is 1 (good), or that the first text is the better one.
    """

    persons: tuple[str, ...]
    texts: tuple[str, ...]
    person_N: Array
    first_N: Array
    second_N: Array
    value_N: Array

    def __len__(self) -> int:
        return len(self.value_N)

    def take(self, keep_N: Array) -> Labels:
        """Some of the labels; persons and texts stay, so that places keep their meaning."""
        columns = (self.person_N, self.first_N, self.second_N, self.value_N)
        return Labels(self.persons, self.texts, *(column[keep_N] for column in columns))

    def counts_P(self) -> Array:
        """How many labels each person gave."""
        return np.bincount(self.person_N, minlength=len(self.persons))


def gather(labels: Iterable[Label], *, persons: Sequence[str] | None = None, texts: Sequence[str] | None = None) -> Labels:
    """Labels as arrays, in order. persons, texts: who and what there is, by default all that occur, sorted.

    They are sorted so that the same labels make the same arrays, in whatever order somebody else's were taken away.
    """
    found = list(labels)
    who = tuple(sorted({label.person for label in found})) if persons is None else tuple(persons)
    named = {name for label in found for name in label[1:3] if name is not None}
    what = tuple(sorted(named)) if texts is None else tuple(texts)
    place, spot = {name: i for i, name in enumerate(who)}, {name: i for i, name in enumerate(what)}
    return Labels(
        who,
        what,
        np.array([place[label.person] for label in found], dtype=np.int64),
        np.array([spot[label.first] for label in found], dtype=np.int64),
        np.array([NONE if label.second is None else spot[label.second] for label in found], dtype=np.int64),
        np.array([label.value for label in found], dtype=np.float64),
    )
