"""Finished calls of a feedback model, kept under what was asked, and what they cost."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from heedful.journal import Journal
from heedful.records import Record

V = TypeVar("V")


class Call(Record):
    """One finished call. key: a hash of the model and all that it was asked; value: what came of it, in JSON's types."""

    key: str
    value: Any


def key_of(*parts: Any) -> str:
    """A key of what a call's result depends on: the SHA-256 of the parts as JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Calls:
    """An append-only file of finished calls. Each is on disk before `add` returns; several threads may add.

    A line that a crash cut short is dropped on opening, as of any Journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path, Call)
        self.values: dict[str, Any] = {record.key: record.value for record in self.journal.records}
        self.lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def __len__(self) -> int:
        return len(self.values)

    def add(self, values: Mapping[str, Any]) -> None:
        """Keeps values under their keys; of a key that is known the first value stays."""
        with self.lock:
            new = {key: value for key, value in values.items() if key not in self.values}
            if new:
                self.journal.append(Call(key=key, value=value) for key, value in new.items())
                self.values |= new

    def once(
        self,
        keys: Sequence[str],
        ask: Callable[[list[int], Callable[[dict[int, V]], None]], list[V]],
        *,
        pack: Callable[[V], Any],
        unpack: Callable[[Any], V],
        tell: Callable[[dict[int, V]], None],
    ) -> tuple[list[V], int]:
        """The value of each key, and how many of them were known: what is not known is asked for once, and kept as it comes.

        ask: from the places of the first of each unknown key to their values in order; it also hands over values by their
        number among those as they come. pack: a value in JSON's types, None for one that is not to be kept. tell hears of
        values by their places among the keys.
        """
        found = {key: unpack(self.values[key]) for key in dict.fromkeys(keys) if key in self.values}
        if known := {place: found[key] for place, key in enumerate(keys) if key in found}:
            tell(known)
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            if key not in found:
                places.setdefault(key, []).append(place)
        waiting = list(places)

        def keep(values: dict[int, V]) -> None:
            named = {waiting[number]: value for number, value in values.items()}
            packed = {key: pack(value) for key, value in named.items()}
            self.add({key: value for key, value in packed.items() if value is not None})
            tell({place: value for key, value in named.items() for place in places[key]})

        asked = ask([places[key][0] for key in waiting], keep) if waiting else []
        found |= dict(zip(waiting, asked, strict=True))
        return [found[key] for key in keys], len(known)


@dataclass
class Usage:
    """What a feedback model was asked in this run. Prices: of a million tokens, in whatever currency the user counts.

    cached: calls that the journal answered. invalid: calls whose reply cannot be used. uncounted: replies that did not say how
    many tokens they took, and are in no sum.
    """

    price_prompt: float = 0.0
    price_completion: float = 0.0
    calls: int = 0
    cached: int = 0
    invalid: int = 0
    retries: int = 0
    uncounted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def cost(self) -> float:
        return (self.prompt_tokens * self.price_prompt + self.completion_tokens * self.price_completion) / 1e6

    def as_dict(self) -> dict[str, float]:
        names = ("calls", "cached", "invalid", "retries", "uncounted", "prompt_tokens", "completion_tokens")
        return {name: getattr(self, name) for name in names} | {"cost": self.cost}
