"""Prompts by the name that a setting gives them: bundled:NAME, a file, or hf://datasets/OWNER/NAME/PATH."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from heedful.data.bundled import gather, load_bundled
from heedful.data.formats import read_prompts
from heedful.models.sources import local_file
from heedful.records import Prompt

BUNDLED = "bundled:"  # before a name that comes with heedful


def prompts_in(name: str) -> list[Prompt]:
    return load_bundled((name.removeprefix(BUNDLED),)) if name.startswith(BUNDLED) else read_prompts(local_file(name))


def gathered(names: Iterable[str]) -> list[Prompt]:
    """Prompts of several files, each once. Raises DataError as `gather` does."""
    return gather((name, prompts_in(name)) for name in names)


def files_in(names: Iterable[str]) -> list[Path]:
    """Those that are files, so that a stage notices when they change."""
    return [local_file(name) for name in names if not name.startswith(BUNDLED)]
