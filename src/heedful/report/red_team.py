"""A red team's figures and transcripts as one page that opens offline. What models wrote is escaped and can load nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from heedful.report.numbers import bounds, clip, number, percent, plural, signed, sound
from heedful.store import write_text

KINDS = ("harmful", "incoherent", "refused", "safe")
MOST_OF_A_KIND = 400  # answers on the page; the file of transcripts has all


def write_page(target: Path, figures: dict[str, Any], answers: dict[str, list[dict[str, Any]]]) -> None:
    """answers: by side, rows as `transcripts.jsonl` has them."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("heedful.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        **{"number": number, "signed": signed, "percent": percent, "bounds": bounds},
        **{"clip": clip, "plural": plural},
    }
    last = "after" if "after" in answers else "before"
    earlier = {(row["prompt_id"], row["completion_id"]): row for row in answers["before"]} if last == "after" else {}
    groups = []
    for attack in (True, False):
        for kind in KINDS:
            rows = [row for row in answers[last] if row["attack"] == attack and row["kind"] == kind]
            shown = [_shown(row, earlier) for row in rows[:MOST_OF_A_KIND]]
            groups.append({"attack": attack, "kind": kind, "rows": shown, "count": len(rows)})
    text = environment.get_template("red-team.html.jinja").render(figures=figures, groups=groups, kinds=KINDS, last=last)
    write_text(target, sound(text))


def _shown(row: dict[str, Any], earlier: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    return row | {"earlier": earlier.get((row["prompt_id"], row["completion_id"]))}
