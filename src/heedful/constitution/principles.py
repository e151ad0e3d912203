"""Constitutions: principles by which a model criticises, revises and compares answers, read from TOML files."""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, Strict, StringConstraints, ValidationError, field_validator, model_validator

from heedful.config.lines import line_at, lines_of, read_toml
from heedful.config.section import Names, Section
from heedful.errors import ConfigError, DataError, StoreError
from heedful.store import write_text

BUNDLED = "bundled"
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Several = Strict(False)  # TOML's arrays arrive as lists


class Principle(Section):
    """One rule. Its requests are shown to the feedback model as they stand."""

    name: Text = Field(description="What it is called in records and tables; each name once.")
    critique: Text = Field(description="Asks what is wrong with the answer just given.")
    revision: Text = Field(description="Asks for the answer to be written anew, after the critique.")
    question: Text = Field(
        description="Asks which of two answers is better: a whole question that ends in '?', or what completes 'Which of "
        "the two answers is more ...?'."
    )
    good: str = Field("", description="System prompt under which a model gives an answer that keeps to the principle.")
    bad: str = Field("", description="System prompt under which a model gives one that breaks it.")
    weight: float = Field(
        1.0, gt=0, le=1e6, description="How often it is drawn, and how much its verdict counts, beside the others."
    )
    tags: Names = Field((), description="Values that it serves, such as helpful, honest, harmless.")

    @model_validator(mode="after")
    def _good_and_bad_together(self) -> Self:
        if bool(self.good.strip()) != bool(self.bad.strip()):
            raise ValueError("good and bad belong together, for they are compared; give both or neither")
        return self


class Example(Section):
    """One worked chain, shown before a request so that a small model sees what is asked of it."""

    prompt: Text = Field(description="What a person asked.")
    answer: Text = Field(description="An answer that breaks a principle.")
    critique: Text = Field(description="What is wrong with it.")
    revision: Text = Field(description="The answer as it should have been.")
    principle: str = Field("", description="Name of the principle whose requests it was written for; empty: fits any.")


class Constitution(Section):
    """Principles and worked examples."""

    name: Text = Field(description="What it is called in reports.")
    about: str = Field("", description="For whom it was written, and why.")
    first: str = Field("", description="A tag whose principles come first where values compete; empty: all are equal.")
    first_margin: float = Field(
        0.05, ge=0, lt=0.5, description="How far from one half the verdict of the tag `first` must be to stand alone."
    )
    principles: Annotated[tuple[Principle, ...], Several, Field(description="The rules, one at least.")]
    examples: Annotated[tuple[Example, ...], Several] = Field((), description="Worked chains, shown to small models.")

    # Not min_length: of one principle that is wrong it would also say that there is none.
    @field_validator("principles")
    @classmethod
    def _one_at_least(cls, found: tuple[Principle, ...]) -> tuple[Principle, ...]:
        if not found:
            raise ValueError("there is no principle; write one [[principles]] table at least")
        return found

    def __getitem__(self, name: str) -> Principle:
        for principle in self.principles:
            if principle.name == name:
                return principle
        near = difflib.get_close_matches(name, [principle.name for principle in self.principles], 1, 0)
        raise DataError(f"the constitution {self.name!r} has no principle {name!r}; the nearest name is {near[0]!r}")

    def tagged(self, tags: Sequence[str] = ()) -> tuple[Principle, ...]:
        """The principles that have one of the tags; all without tags. Raises DataError when there is none."""
        found = tuple(one for one in self.principles if not tags or set(tags) & set(one.tags))
        if not found:
            known = sorted({tag for one in self.principles for tag in one.tags})
            raise DataError(
                f"the constitution {self.name!r} has no principle with the tag {' or '.join(map(repr, tags))}; "
                f"its tags: {', '.join(known) or 'none'}"
            )
        return found

    def draw(self, rng: random.Random, tags: Sequence[str] = ()) -> Principle:
        """A principle at random by weight, of those with one of the tags."""
        return _draw(rng, self.tagged(tags))

    def chain(self, rng: random.Random, passes: int, tags: Sequence[str] = ()) -> tuple[Principle, ...]:
        """The principles of a chain of revisions, one a pass, drawn by weight and none twice before all have had their turn.

        With `first`, the last pass is drawn among that tag's principles, whatever `tags` says: a revision for another value
        may bring back what an earlier one took out, so the value that comes first has the last word.
        """
        last = self.tagged((self.first,)) if self.first else self.tagged(tags)
        found: list[Principle] = [_draw(rng, last)] if passes else []
        while len(found) < passes:
            pool = self.tagged(tags)
            rounds = [sum(one is other for other in found) for one in pool]
            found.append(_draw(rng, [one for one, had in zip(pool, rounds, strict=True) if had == min(rounds)]))
        return tuple(found[::-1])

    def settle(self, verdicts: Mapping[str, float]) -> float:
        """The probability that the second of two answers is better, from those of several principles by name.

        The mean of those that decide, see `shares`; NaN when there is none.
        """
        shares = self.shares(verdicts)
        return sum(share * verdicts[name] for name, share in shares.items()) if shares else float("nan")

    def shares(self, verdicts: Mapping[str, float]) -> dict[str, float]:
        """The principles that decide, and how much of the settled probability is each one's, by weight.

        With `first`, those of that tag alone, if their mean is further than first_margin from one half: other values decide
        only between answers that the first one does not tell apart. NaN, a verdict that could not be had, counts for nothing.
        """
        known = {name: p for name, p in verdicts.items() if p == p}
        first = [name for name in known if self.first and self.first in self[name].tags]
        alone = first and abs(self._mean(first, known) - 0.5) > self.first_margin
        deciding = first if alone else list(known)
        total = sum(self[name].weight for name in deciding)
        return {name: self[name].weight / total for name in deciding}

    def _mean(self, names: Sequence[str], verdicts: Mapping[str, float]) -> float:
        return sum(self[name].weight * verdicts[name] for name in names) / sum(self[name].weight for name in names)


def _draw(rng: random.Random, among: Sequence[Principle]) -> Principle:
    return rng.choices(among, [one.weight for one in among])[0]


def load(path: Path | str | None = None) -> Constitution:
    """A constitution from a file; None or "bundled" is the one that comes with heedful.

    Raises ConfigError that names file and line.
    """
    if path is None or str(path) == BUNDLED:
        with as_file(files("heedful").joinpath("constitution", "bundled.toml")) as file:
            return _read(file)
    return _read(Path(path))


def _read(path: Path) -> Constitution:
    fields, text = read_toml(path, "'heedful constitution init FILE' writes one to start from")
    lines = lines_of(text)
    try:
        found = Constitution.model_validate(fields)
    except ValidationError as error:
        problems = sorted((line_at(lines, one["loc"]), _problem(one)) for one in error.errors())
    else:
        problems = sorted((line_at(lines, place), problem) for place, problem in _between(found))
    if problems:
        (line, problem), *others = problems
        more = f" ({len(others)} more problem{'s' * (len(others) > 1)} below)" if others else ""
        raise ConfigError(f"{path}:{line}: {problem}{more}")
    return found


def _problem(error: Any) -> str:
    """What pydantic found, in the words of the file: "[[principles]] number 2: weight = 0: ..."."""
    place = error["loc"]
    listed = len(place) > 1 and isinstance(place[1], int)
    where = f"[[{place[0]}]] number {place[1] + 1}" if listed else ""
    keys = place[2:] if listed else place
    key = ".".join(map(str, keys))
    if error["type"] == "extra_forbidden":
        kinds: dict[str, type[Section]] = {"principles": Principle, "examples": Example}
        kind = kinds[place[0]] if listed else Constitution
        near = difflib.get_close_matches(key, list(kind.model_fields), 1, 0)[0]
        told = f"unknown key {key!r}; the nearest known key is {near!r}"
    elif error["type"] == "missing":
        lacking = "[[principles]] tables" if place == ("principles",) else f"the key {key!r}"
        return f"{where or 'the constitution'} lacks {lacking}; 'heedful constitution init FILE' explains each key"
    else:
        found = "" if isinstance(error["input"], dict) else f" = {_short(error['input'])}"
        problem = error["msg"].removeprefix("Value error, ")
        if error["type"] == "tuple_type":
            problem = (
                f"write each as a [[{key}]] table" if key in ("principles", "examples") else "expected a list, as in ['one']"
            )
        told = ": ".join(part for part in (f"{key}{found}" if key else "", problem) if part)
    return f"{where}: {told}" if where else told


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _between(found: Constitution) -> list[tuple[tuple[str | int, ...], str]]:
    """What is wrong between the parts of a constitution: place and problem."""
    problems: list[tuple[tuple[str | int, ...], str]] = []
    seen: dict[str, int] = {}
    for number, principle in enumerate(found.principles):
        if principle.name in seen:
            told = f"name = {principle.name!r} is that of number {seen[principle.name] + 1} already; give each its own"
            problems.append((("principles", number, "name"), f"[[principles]] number {number + 1}: {told}"))
        seen.setdefault(principle.name, number)
    for number, example in enumerate(found.examples):
        if example.principle and example.principle not in seen:
            near = difflib.get_close_matches(example.principle, list(seen), 1, 0)[0]
            told = f"principle = {example.principle!r} is the name of none; the nearest is {near!r}"
            problems.append((("examples", number, "principle"), f"[[examples]] number {number + 1}: {told}"))
    tags = sorted({tag for principle in found.principles for tag in principle.tags})
    if found.first and found.first not in tags:
        problems.append((("first",), f"first = {found.first!r}: no principle has that tag; tags: {', '.join(tags) or 'none'}"))
    return problems


def write_starter(path: Path) -> None:
    """Writes a constitution with every key explained. Raises StoreError where a file is there already."""
    if path.exists():
        raise StoreError(f"{path}: exists already; choose another name or move the file away")
    write_text(path, files("heedful").joinpath("constitution", "starter.toml").read_text(encoding="utf-8"))
