"""What changed on the held-out prompts, as tables: of all of them, and prompt category by category."""

from __future__ import annotations

from typing import Any

from heedful.report.numbers import bounds, finite, number, signed

PERCENT = {"refusal_harmful", "refusal_safe", "refusal", "incoherent", "finished"}
# Short enough for a terminal of 80 columns, and for a phone.
SHORT_LABELS = {
    "refusal_harmful": "Refuses harmful",
    "refusal_safe": "Refuses safe",
    "incoherent": "Incoherent",
    "finished": "Ends by itself",
    "length": "Length (tokens)",
}
ONE_PROMPT = "one prompt only: no interval"
SHORT_VERDICTS = {"no clear change": "unclear", ONE_PROMPT: "one prompt"}

Compared = dict[str, dict[str, Any]]


def compare_table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of label, before, after, difference with its 95% interval, verdict; short enough for 80 columns.

    Rates are in percent, their differences in percentage points.
    """
    return [(label_of(name, row), *cells(name, row)) for name, row in summary.get("compare", {}).items()]


def by_category(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """A table for each quantity: of each category the number of prompts, before, after, difference, verdict."""
    found = []
    tags: dict[str, Compared] = summary.get("by_tag", {})
    for name, row in summary.get("compare", {}).items():
        rows = [
            (tag, compared[name]["num_prompts"], *cells(name, compared[name]))
            for tag, compared in tags.items()
            if name in compared
        ]
        if rows:
            found.append({"label": row["label"], "better": row.get("better"), "rows": rows})
    return found


def label_of(name: str, row: dict[str, Any]) -> str:
    return SHORT_LABELS.get(name, str(row["label"]))


def scale_of(name: str) -> int:
    return 100 if name in PERCENT else 1


def cells(name: str, row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Before, after, difference with its interval, verdict."""
    scale, digits, unit = scale_of(name), 0 if name in PERCENT else 1 if name == "length" else 3, "%" if name in PERCENT else ""
    estimates = [row[side]["estimate"] for side in ("before", "after", "difference")]
    first, second, change = [scale * value if finite(value) else None for value in estimates]
    before, after = (number(value, digits) + (unit if finite(value) else "") for value in (first, second))
    difference = signed(change, digits) + bounds(row["difference"], digits, scale=scale, sign=True)
    return (before, after, difference, SHORT_VERDICTS.get(row["verdict"], str(row["verdict"])))
