"""What a result of Label Studio's Ranker says. Facts from its editor (tags/control/Ranker.jsx, tags/object/List.jsx)."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from heedful.data.interchange.foreign import Fields, as_list, as_name, as_object, unexpected
from heedful.data.interchange.sets import Asked
from heedful.errors import RecordError

LEFT = "_"  # the column of what was not put into a bucket
FLAGGED = ("flagged", "nonsense")  # the first is written
_RANK = re.compile(r"[1-9][0-9]{0,3}")
_FLAG, _UNPLACED = -1, 0  # in place of a rank
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_MOST_INDEX = 2**32 - 2  # what JavaScript takes for an array's index


class Answer(NamedTuple):
    """untouched: the answer is also what is stored when nobody moves anything."""

    ranks: dict[str, int]
    flagged: list[str]
    untouched: bool


def answer_of(result: Fields, ids: list[str], asked: Asked, where: str) -> Answer | None:
    """What a result says of a task's items; None where it leaves one of them unplaced. Raises RecordError.

    A Ranker without buckets gives an array of ids, or an object with its own name as the only key: best first. With buckets it
    is an object of arrays; a bucket is a rank or the flags, and the order within it says nothing.
    """
    value = as_object(result.get("value"), "value", where).get("ranker")
    if isinstance(value, dict) and list(value) == [result.get("from_name")]:
        value = next(iter(value.values()))
    if isinstance(value, list):
        columns = [(rank, [item]) for rank, item in enumerate(value, start=1)]
    elif isinstance(value, dict):
        filled = {name: items for name, items in value.items() if as_list(items, f"value.ranker.{name}", where)}
        columns = [(_rank(name, list(filled), asked, where), items) for name, items in filled.items()]
    else:
        raise unexpected(value, "value.ranker", "an array of item ids, or buckets of them", where)
    placed = _placed(columns, ids, where)
    if not ids or len(placed) < len(ids) or _UNPLACED in placed.values():
        return None
    # Without "_" one of the buckets may be the default one, in which all items begin.
    one_column = isinstance(value, list) or (LEFT not in value and len(columns) == 1)
    return Answer(
        {id_: rank for id_, rank in placed.items() if rank > _UNPLACED},
        [id_ for id_, rank in placed.items() if rank == _FLAG],
        len(ids) > 1 and one_column and list(placed) in (ids, _as_listed(ids)),
    )


def _placed(columns: list[tuple[int, list[Any]]], ids: list[str], where: str) -> dict[str, int]:
    placed: dict[str, int] = {}
    for rank, items in columns:
        for item in items:
            id_ = as_name(item, "value.ranker", where)
            if id_ not in ids:
                raise RecordError(where, f"ranks item {id_!r}, which the task does not hold; there are: {', '.join(ids)}")
            if id_ in placed:
                raise RecordError(where, f"ranks item {id_!r} twice; keep one of the two")
            placed[id_] = rank
    return placed


def _rank(bucket: str, filled: list[str], asked: Asked, where: str) -> int:
    """The rank that a bucket's name says. Its place does not count: PostgreSQL keeps keys in an order of its own."""
    name = bucket.strip()
    if bucket == LEFT:
        return _UNPLACED
    if name in asked.buckets:
        return asked.buckets.index(name) + 1
    if name.lower() in FLAGGED:
        return _FLAG
    if not asked.buckets and _RANK.fullmatch(name):
        return int(name)
    names = asked.buckets or [other for other in filled if other != LEFT and other.strip().lower() not in FLAGGED]
    raise RecordError(
        where, f"bucket {bucket!r} says no rank; name all buckets that are ranks, best first, as in --buckets {','.join(names)}"
    )


def _as_listed(ids: list[str]) -> list[str]:
    """The order in which the editor lists items: JavaScript puts keys that are whole numbers first, in numeric order."""
    numbers = [id_ for id_ in ids if _INDEX.fullmatch(id_) and int(id_) <= _MOST_INDEX]
    return [*sorted(numbers, key=int), *(id_ for id_ in ids if id_ not in numbers)]
