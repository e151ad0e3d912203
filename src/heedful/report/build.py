"""Stand-in until the report room is written."""

from pathlib import Path
from typing import Any


def build(run: Path) -> Path:
    return run


def compare_table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    return []
