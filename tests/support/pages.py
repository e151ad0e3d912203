"""What the pages list, for tests that compare it with what a command wrote."""

from __future__ import annotations

import re
from pathlib import Path

METHODS = Path(__file__).parents[2] / "docs" / "methods"


def documented(page: str, heading: str = "## What the result says") -> set[str]:
    """Names in the tables between a heading of a method's page and the next heading of any level."""
    text = (METHODS / page).read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page}: no heading {heading!r}"
    return set(re.findall(r"^\| `(\w+)`", found[1], re.MULTILINE))
