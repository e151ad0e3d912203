"""A reward that the user wrote as a Python function: python:package.module:name, or path/to/file.py:name.

Code runs only when a person names it, on the command line or in heedful.toml; nothing that lies in a model's folder can.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heedful.errors import RewardError, SourceError
from heedful.models.reward import Answer
from heedful.rewards.answers import conversations, one_number_each
from heedful.team import once

_FILE = re.compile(r"^(?:python:)?(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)$")
_MODULE = re.compile(r"^python:(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)$")


@dataclass(frozen=True)
class FunctionPlace:
    """Where a function stands: in a file, or in a module that can be imported."""

    file: Path | None
    module: str
    name: str


def function_place(source: str) -> FunctionPlace | None:
    """The place that a source names, None when it names none. Loads nothing."""
    if in_file := _FILE.match(source):
        return FunctionPlace(Path(in_file["file"]).expanduser(), "", in_file["name"])
    if in_module := _MODULE.match(source):
        return FunctionPlace(None, in_module["module"], in_module["name"])
    if source.startswith("python:"):
        raise SourceError(f"{source}: expected python:package.module:function or path/to/file.py:function")
    return None


class FunctionReward:
    """Calls function(prompts, completions) and takes one finite number an answer.

    prompts: a conversation each, as a list of {"role": ..., "content": ...}; completions: the texts, without special tokens.
    Of a team one member calls it.
    """

    measured: dict[str, float]

    def __init__(self, function: Callable[[list[Any], list[str]], Any], source: str) -> None:
        self.function = function
        self.source = source
        self.measured = {}

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        return once(lambda: self._ask(answers), "reward function")

    def _ask(self, answers: Sequence[Answer]) -> list[float]:
        try:
            found = self.function(conversations(answers), [answer.text for answer in answers])
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1]
            raise RewardError(
                f"{self.source}: the reward function failed with {type(error).__name__}: {str(error)[:200]} "
                f"({line.filename}:{line.lineno}). Mend it, then run the same command again: it goes on from its checkpoint"
            ) from error
        return one_number_each(found, answers, f"{self.source}: the reward function")


def load_function(source: str, place: FunctionPlace) -> FunctionReward:
    """Imports the function, from the working directory too. Raises SourceError, one paragraph, when it cannot be had."""
    try:
        module = _module_in(place.file) if place.file is not None else _module_named(place.module)
    except Exception as error:  # a module may raise anything while it is imported
        raise SourceError(f"{source}: cannot be imported ({type(error).__name__}: {str(error)[:200]})") from error
    function = getattr(module, place.name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise SourceError(f"{source}: there is no function {place.name!r}; there are: {', '.join(known) or 'none'}")
    return FunctionReward(function, source)


def _module_in(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    spec = importlib.util.spec_from_file_location(f"heedful_reward_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _module_named(name: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    finally:
        if added:
            sys.path.remove(here)
