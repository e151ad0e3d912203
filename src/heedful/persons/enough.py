"""Whether persons have said enough for an adapter of their own, whatever it learns by."""

from __future__ import annotations

from collections.abc import Sequence

from heedful.errors import DataError


def require_enough(persons: Sequence[str], count: int, what: str, least: int) -> None:
    """Raises DataError below `least` labels, naming how many there are. what: they are, as in "decided pairs"."""
    if count >= least:
        return
    who = repr(persons[0]) if len(persons) == 1 else f"these {len(persons)} persons"
    raise DataError(
        f"{who} gave {count} {what}, and an adapter needs {least}; collect {least - count} more "
        "('heedful persons ask' names the most telling), put persons of like wishes together, or choose answers with "
        "'heedful persons best'"
    )
