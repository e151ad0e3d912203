"""Phrases that a policy has come to repeat: what a reward was won with when it was not won by better answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

WORDS = 4  # words of the shortest phrase
MIN_SHARE = 0.2  # of the answers that hold it
MIN_RATIO = 5.0  # times as frequent as among the reference's answers
LONGEST = 16
NUM_PHRASES = 3
# A longer phrase is still the same one while it stands in this share of the answers that hold its beginning.
SAME = 0.8

_WORD = re.compile(r"\w+(?:['’]\w+)*")

Gram = tuple[str, ...]


class Phrase(NamedTuple):
    """A phrase, and the shares of the reference's and of the policy's answers that hold it at least once."""

    phrase: str
    before: float
    after: float


def repeated_phrases(before: Sequence[str], after: Sequence[str]) -> list[Phrase]:
    """Phrases of four words or more in over a fifth of the answers `after`, and five times as often as `before`.

    Most frequent first, three at most, none a part of another. Words are compared without case and punctuation; each
    answer counts once however often it repeats itself. Never seen before counts as seen in half an answer.
    """
    old, new = [words(text) for text in before], [words(text) for text in after]
    if not old or not new:
        return []
    was, counts = _holding(old), _holding(new)
    least = max(MIN_SHARE * len(new), 1.0)  # a phrase of one answer is no habit

    def share_before(gram: Gram) -> float:
        return max(was[gram], 0.5) / len(old)

    frequent = {
        gram: count for gram, count in counts.items() if count > least and count / len(new) >= MIN_RATIO * share_before(gram)
    }
    found: list[Phrase] = []
    covered: set[Gram] = set()
    for gram in sorted(frequent, key=lambda gram: (-frequent[gram], gram)):
        if gram in covered or len(found) == NUM_PHRASES:
            continue
        phrase = _extended(gram, frequent)
        covered |= {phrase[i : i + WORDS] for i in range(len(phrase) - WORDS + 1)}
        told = " ".join(phrase)
        # What joins two phrases that are told already adds nothing.
        if not any(f" {other.phrase} " in f" {told} " or f" {told} " in f" {other.phrase} " for other in found):
            found.append(Phrase(told, was[gram] / len(old), frequent[gram] / len(new)))
    return found


def words(text: str) -> list[str]:
    """Words of a text in lower case, without punctuation."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def _holding(answers: Sequence[Sequence[str]]) -> Counter[Gram]:
    """In how many answers each phrase of four words stands."""
    found: Counter[Gram] = Counter()
    for answer in answers:
        found.update({tuple(answer[i : i + WORDS]) for i in range(len(answer) - WORDS + 1)})
    return found


def _extended(gram: Gram, frequent: dict[Gram, int]) -> Gram:
    """The phrase around a gram: words are added to either side while nearly all answers with the gram hold them too."""
    least = SAME * frequent[gram]
    phrase = gram
    for after in (True, False):
        while len(phrase) < LONGEST:
            kept = phrase[-WORDS + 1 :] if after else phrase[: WORDS - 1]
            side = slice(None, -1) if after else slice(1, None)
            nexts = [other for other, count in frequent.items() if other[side] == kept and count >= least]
            grown = max(nexts, key=lambda other: (frequent[other], other), default=None)
            if grown is None or grown in {phrase[i : i + WORDS] for i in range(len(phrase) - WORDS + 1)}:
                break
            phrase = (*phrase, grown[-1]) if after else (grown[0], *phrase)
    return phrase
