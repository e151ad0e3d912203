"""What changed on the held-out prompts, as a table, as dots with their intervals, and prompt category by category."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from heedful.report.numbers import bounds, finite, number, signed
from heedful.report.plots import GREY, Figure, figure_of, styled

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
COLOURS = {"improved": "#2da44e", "worse": "#d1242f", "grew": "#2f81f7", "shrank": "#2f81f7"}
# Quantities of one unit share an axis: title, unit, which of them.
PANELS = (
    ("Reward", "units of the reward", ("reward",)),
    ("Scores", "points between 0 and 1", ("rubric", "toxicity")),
    ("Rates", "percentage points", ("refusal_harmful", "refusal_safe", "refusal", "incoherent", "finished")),
    ("Length", "tokens", ("length",)),
)
ROW, FRAME = 34, 62  # pixels of a dot's row, and of what is around the rows

Compared = dict[str, dict[str, Any]]


def compare_table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of label, before, after, difference with its 95% interval, verdict; short enough for 80 columns.

    Rates are in percent, their differences in percentage points.
    """
    return [(label_of(name, row), *_cells(name, row)) for name, row in summary.get("compare", {}).items()]


def by_category(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """A table for each quantity: of each category the number of prompts, before, after, difference, verdict."""
    found = []
    tags: dict[str, Compared] = summary.get("by_tag", {})
    for name, row in summary.get("compare", {}).items():
        rows = [
            (tag, compared[name]["num_prompts"], *_cells(name, compared[name]))
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


def _cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    scale, digits, unit = scale_of(name), 0 if name in PERCENT else 1 if name == "length" else 3, "%" if name in PERCENT else ""
    estimates = [row[side]["estimate"] for side in ("before", "after", "difference")]
    first, second, change = [scale * value if finite(value) else None for value in estimates]
    shown = [number(value, digits) + (unit if finite(value) else "") for value in (first, second)]
    difference = signed(change, digits) + bounds(row["difference"], digits, scale=scale, sign=True)
    return (*shown, difference, SHORT_VERDICTS.get(row["verdict"], str(row["verdict"])))


def difference_figures(summary: dict[str, Any]) -> list[Figure]:
    """Each difference as a dot with its interval, those of one unit in one panel, beside a line at 0."""
    found = []
    compared: Compared = summary.get("compare", {})
    for title, unit, names in PANELS:
        rows = [(name, compared[name]) for name in names if name in compared]
        rows = [(name, row) for name, row in rows if finite(row["difference"]["estimate"])]
        if rows:
            found.append(figure_of(title, f"After less before, in {unit}.", _dots(rows, unit)))
    return found


def _dots(rows: list[tuple[str, dict[str, Any]]], unit: str) -> go.Figure:
    figure = go.Figure()
    for name, row in reversed(rows):  # plotly counts from below
        scale, difference = scale_of(name), row["difference"]
        at, low, high = (difference[key] for key in ("estimate", "low", "high"))
        spread = None
        if finite(low) and finite(high):
            spread = {
                "type": "data",
                "symmetric": False,
                "array": [scale * (high - at)],
                "arrayminus": [scale * (at - low)],
                "width": 5,
            }
        colour = COLOURS.get(row["verdict"], GREY)
        # No text from the run gets into a plot: the label of a quantity that is not ours is its name.
        label = SHORT_LABELS.get(name, name.capitalize())
        figure.add_scatter(
            x=[scale * at], y=[label], error_x=spread, mode="markers", name=name, marker={"size": 11, "color": colour}
        )
    figure.add_vline(x=0, line_color=GREY, line_dash="dot")
    figure = styled(figure, unit, height=ROW * len(rows) + FRAME, show_legend=False)
    ends = [scale_of(name) * (row["difference"][key] or 0) for name, row in rows for key in ("estimate", "low", "high")]
    reach = 1.12 * max(map(abs, ends)) or 1.0  # 0 in the middle, so that sides compare
    figure.update_xaxes(range=[-reach, reach], nticks=7)
    figure.update_yaxes(range=[-0.6, len(rows) - 0.4], showgrid=False)
    figure.update_layout(margin={"l": 112, "t": 6})
    return figure
