"""What changed on the held-out prompts, as dots with their intervals."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from heedful.report.numbers import finite
from heedful.report.plots import GREY, Figure, figure_of, styled
from heedful.report.table import SHORT_LABELS, Compared, scale_of

COLOURS = {"improved": "#2da44e", "worse": "#d1242f", "grew": "#2f81f7", "shrank": "#2f81f7"}
# Quantities of one unit share an axis: title, unit, which of them.
PANELS = (
    ("Reward", "units of the reward", ("reward",)),
    ("Scores", "points between 0 and 1", ("rubric", "toxicity")),
    ("Rates", "percentage points", ("refusal_harmful", "refusal_safe", "refusal", "incoherent", "finished")),
    ("Length", "tokens", ("length",)),
)
ROW, FRAME = 34, 62  # pixels of a dot's row, and of what is around the rows


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
    figure.update_xaxes(range=[-reach, reach], nticks=5, tickangle=0)
    figure.update_yaxes(range=[-0.6, len(rows) - 0.4], showgrid=False)
    figure.update_layout(margin={"l": 112, "t": 6})
    return figure
