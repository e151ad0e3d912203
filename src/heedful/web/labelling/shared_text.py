"""What the completions of a set have in common: equal ones are shown once, and what most share can be dimmed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RUN = 4  # words in a row; fewer are alike by chance


class Piece(NamedTuple):
    text: str
    shared: bool


def groups(completions: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[list[str]]:
    """Ids of completions with the same text, in the order shown: a group is shown once."""
    text = {completion["id"]: completion["text"].strip() for completion in completions}
    found: dict[str, list[str]] = {}
    for id_ in order:
        found.setdefault(text[id_], []).append(id_)
    return list(found.values())


def pieces(texts: Sequence[str]) -> list[list[Piece]]:
    """Each text cut where it begins or ceases to be shared. Joined again, the pieces are the text.

    A word is shared when it stands in a run of RUN words that occurs in most of the texts.
    """
    tokens = [re.findall(r"\S+\s*|\s+", text) for text in texts]
    words = [[token.strip() for token in row] for row in tokens]
    runs = [{tuple(row[i : i + RUN]) for i in range(len(row) - RUN + 1)} for row in words]
    counts = Counter(run for own in runs for run in own)
    common = {run for run, count in counts.items() if count > max(1, len(texts) / 2)}
    return [_cut(row, own, common) for row, own in zip(tokens, words, strict=True)]


def _cut(tokens: Sequence[str], words: Sequence[str], common: set[tuple[str, ...]]) -> list[Piece]:
    shared = [False] * len(tokens)
    for i in range(len(words) - RUN + 1):
        if tuple(words[i : i + RUN]) in common:
            shared[i : i + RUN] = [True] * RUN
    found: list[Piece] = []
    for token, alike in zip(tokens, shared, strict=True):
        if found and found[-1].shared == alike:
            found[-1] = Piece(found[-1].text + token, alike)
        else:
            found.append(Piece(token, alike))
    return found
