"""A run directory as one HTML file that opens offline: did it get better, at what cost, can it be trusted."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import jinja2

from heedful.errors import StoreError
from heedful.report import plots
from heedful.store import read_json, read_metrics, write_text

NUM_EXAMPLES = 6
NUM_REGRESSIONS = 3
PERCENT = {"refusal_harmful", "refusal_safe", "finished"}


def build(run: Path) -> Path:
    """Writes report.html from the files that are there; a stage that has not run yet leaves a sentence in its place."""
    summary = read_json(run / "summary.json") if (run / "summary.json").exists() else {}
    metrics = read_metrics(run)
    sides = {name: _rows(run / "evaluate" / f"{name}.jsonl") for name in ("before", "after")}
    pairs = _pairs(sides["before"], sides["after"])
    worst = sorted(pairs, key=lambda pair: pair["change"])[:NUM_REGRESSIONS]
    chosen = random.Random(0).sample(pairs, min(NUM_EXAMPLES, len(pairs)))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("heedful.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        summary=summary,
        findings=findings(summary),
        table=compare_table(summary),
        figures=plots.figures(metrics, sides, summary.get("kl_target") or None),
        plotly=plots.script() if metrics or pairs else "",
        examples=chosen,
        worst=[pair for pair in worst if pair["change"] < 0],
        rest=pairs,
        number=number,
    )
    target = run / "report.html"
    write_text(target, page)
    return target


def findings(summary: dict[str, Any]) -> list[str]:
    """What the intervals allow to say, in sentences: gains first, then what stayed, then what got worse."""
    compared = summary.get("compare", {})
    said = []
    for verdict, words in (("improved", "improved"), ("no clear change", "did not clearly change"), ("worse", "got worse")):
        names = [row["label"].lower() for row in compared.values() if row["verdict"] == verdict]
        if names:
            listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
            said.append(f"{listed[0].upper()}{listed[1:]} {words}.")
    if "kl" in summary:
        target = summary.get("kl_target") or None
        within = "" if target is None else " (target " + number(target) + ")"
        said.append(f"The aligned model is {number(summary['kl']['estimate'])} nats a sequence away from the base{within}.")
    return said


def compare_table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of label, before, after, difference with its 95% interval, verdict; short enough for 80 columns."""
    rows = []
    for name, row in summary.get("compare", {}).items():
        scale, digits, unit = (100, 0, "%") if name in PERCENT else (1, 1 if name == "length" else 3, "")
        shown = [f"{scale * row[side]['estimate']:.{digits}f}{unit}" for side in ("before", "after")]
        difference = row["difference"]
        change = f"{scale * difference['estimate']:+.{digits}f}"
        if difference["low"] is not None:
            change += f" [{scale * difference['low']:+.{digits}f}, {scale * difference['high']:+.{digits}f}]"
        label = row["label"].replace("Refusals of ", "Refuses ").replace("Answers that end by themselves", "Ends by itself")
        rows.append((label.replace(" prompts", ""), *shown, change, row["verdict"].replace("no clear change", "unclear")))
    return rows


def number(value: float | None, digits: int = 2) -> str:
    """A number for a reader; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for line_number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line:
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise StoreError(f"{path}:{line_number}: not a JSON object; run 'heedful run --from evaluate' again") from None
    return rows


def _pairs(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers to the same prompt, before and after, with the change of the reward; the first of each prompt."""
    first: dict[str, dict[str, Any]] = {}
    for row in before:
        first.setdefault(row["prompt_id"], row)
    seen: dict[str, dict[str, Any]] = {}
    for row in after:
        seen.setdefault(row["prompt_id"], row)
    found = []
    for prompt_id, row in seen.items():
        if prompt_id in first:
            change = row["reward"] - first[prompt_id]["reward"]
            found.append({"before": first[prompt_id], "after": row, "change": change if math.isfinite(change) else 0.0})
    return found
