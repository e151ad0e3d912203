"""The report's plots. They hold numbers only: no text that a model wrote gets in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from heedful.report.numbers import finite
from heedful.report.thinning import kept

# The accent marks what counts (held-out, after), grey what it is held against (training, before). Both read on white and black.
ACCENT, GREY = "#2f81f7", "#8a8f98"
INK, GRID = "#7d8590", "rgba(125,133,144,.2)"
TALL, SMALL = 260, 180
# More curve points than this, and markers run into each other.
MAX_MARKERS = 40
MAX_UNIT_TICKS = 10
NUM_BINS = 24
MAX_POINTS = 1000  # of a curve; more are not seen, and make the page large
MAX_VALUES = 5000  # of a histogram that the browser counts
METHODS = ("ppo", "rloo", "grpo")  # stages that optimise the policy

Rows = list[dict[str, Any]]
Figure = dict[str, Any]


def script() -> str:
    """plotly's own JavaScript, for a page without a network."""
    return str(get_plotlyjs())


def ppo_figures(metrics: Rows, kl_target: float | None) -> list[Figure]:
    """Reward and distance from the base, step by step."""
    rows = [row for row in metrics if row.get("stage") in METHODS]
    if not rows:
        return []
    reward = lines_of(rows, {"reward": ("training", GREY), "heldout_reward": ("held-out", ACCENT)}, "step")
    kl = lines_of(rows, {"kl_policy_ref": ("KL(policy || reference)", ACCENT)}, "step")
    if finite(kl_target) and kl_target > 0:
        kl.add_hline(y=kl_target, line_dash="dot", line_color=GREY, annotation_text=f"target {kl_target:g}")
    return [
        figure_of("Reward", "Mean score of the reward model.", reward),
        figure_of("Distance from the base", "KL(policy || reference) in nats a sequence, on training rollouts.", kl),
    ]


def health_figures(metrics: Rows) -> list[Figure]:
    """Small multiples: what tells a sound run from a sick one."""
    rows = [row for row in metrics if row.get("stage") in METHODS]
    if not rows:
        return []
    told = {
        "entropy": ("Entropy", "Nats a token. Falling to 0: collapse."),
        "length": ("Length", "Tokens of a rollout."),
        "finished": ("Finished", "Share that ends by itself."),
        "clip_fraction": ("Clip fraction", "Share of tokens past the clip."),
        "value_loss": ("Value loss", "Squared error, clipped."),
        "explained_variance": ("Explained variance", "Of returns by values; 1 is perfect."),
    }
    return [
        figure_of(title, caption, lines_of(rows, {name: (title.lower(), ACCENT)}, "step", height=SMALL))
        for name, (title, caption) in told.items()
        if any(finite(row.get(name)) for row in rows)
    ]


def reward_figures(metrics: Rows) -> list[Figure]:
    """Training of the reward model."""
    rows = [row for row in metrics if row.get("stage") == "reward"]
    if not rows:
        return []
    accuracy = lines_of(rows, {"accuracy": ("training", GREY), "heldout_accuracy": ("held-out", ACCENT)}, "optimiser step")
    accuracy.add_hline(y=0.5, line_dash="dot", line_color=GREY)
    accuracy.update_yaxes(range=[-0.03, 1.03])
    return [
        figure_of(
            "Loss", "Of a batch of pairs; 0.69 is a coin's.", lines_of(rows, {"loss": ("loss", ACCENT)}, "optimiser step")
        ),
        figure_of("Accuracy", "Share of pairs in the labelers' order; the dotted line is a coin's.", accuracy),
    ]


def histogram_figures(before: Rows, after: Rows) -> list[Figure]:
    """Reward and rubric score of every held-out answer, before and after."""
    found = []
    for name in ("reward", "rubric"):
        sides = {side: [row[name] for row in rows if finite(row.get(name))] for side, rows in _sides(before, after)}
        if any(sides.values()):
            found.append(figure_of(name.capitalize(), "Number of held-out answers.", _histogram(sides, name)))
    return found


def _sides(before: Rows, after: Rows) -> Sequence[tuple[str, Rows]]:
    return (("before", before), ("after", after))


def figure_of(title: str, caption: str, figure: go.Figure) -> Figure:
    # With no "<" left, the numbers cannot end or comment out the script element that holds them.
    shown = str(figure.to_json()).replace("<", "\\u003c")
    return {"title": title, "caption": caption, "json": shown, "height": figure.layout.height or TALL}


def thinning(metrics: Rows) -> str:
    """What the page says where curves are thinned."""
    longest = max((sum(row.get("stage") == stage for row in metrics) for stage in (*METHODS, "reward")), default=0)
    if longest <= MAX_POINTS:
        return ""
    return (
        f"Curves of more than {MAX_POINTS:,} points are thinned: of each stretch the lowest and the highest are drawn. "
        f"metrics.jsonl has all {longest:,} steps."
    )


def thinned(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """At most MAX_POINTS of a curve, each of them as it was: the ends, and of each stretch the lowest and the highest."""
    return [points[place] for place in kept(np.array([point[1] for point in points]), MAX_POINTS)]


def lines_of(rows: Rows, curves: dict[str, tuple[str, str]], axis: str, *, height: int = TALL) -> go.Figure:
    """curves: label and colour by metric. Held-out values come only every few steps: they are markers."""
    figure = go.Figure()
    steps = [row["step"] + 1 for row in rows]
    for name, (label, colour) in curves.items():
        points = thinned([(row["step"] + 1, row[name]) for row in rows if finite(row.get(name))])
        if points:
            held_out = name.startswith("heldout_")
            many = len(points) > MAX_MARKERS
            mode = "markers" if held_out else "lines" if many else "markers+lines"
            marker = {"size": 4 if many else 9, "symbol": "diamond"} if held_out else {"size": 5}
            x, y = [list(part) for part in zip(*points, strict=True)]
            figure.add_scatter(x=x, y=y, name=label, mode=mode, line_color=colour, marker=marker | {"color": colour})
    # plotly would put ticks at step 1.5, and a lone step between -1 and 3.
    if max(steps) <= MAX_UNIT_TICKS:
        figure.update_xaxes(dtick=1, range=[min(steps) - 0.5, max(steps) + 0.5])
    return styled(figure, axis, height=height, show_legend=len(curves) > 1)


def _histogram(sides: dict[str, list[float]], name: str) -> go.Figure:
    figure = go.Figure()
    every = [value for values in sides.values() for value in values]
    start, spread = min(every), max(every) - min(every)
    width = spread / NUM_BINS if spread > 0 else 0.1
    # The same bins on both sides, one more than the spread fills: the largest value stands on the last edge.
    bins = {"start": start, "size": width, "end": start + (NUM_BINS + 1) * width}
    edges = [start + n * width for n in range(NUM_BINS + 2)]
    for side, colour in (("before", GREY), ("after", ACCENT)):
        shared = {"name": side, "marker_color": colour, "opacity": 0.6}
        if len(every) <= MAX_VALUES:
            figure.add_histogram(x=sides[side], xbins=bins, **shared)
        else:
            counts, _ = np.histogram(sides[side], edges)
            figure.add_bar(x=[edge + width / 2 for edge in edges[:-1]], y=counts.tolist(), width=width, **shared)
    figure.update_layout(barmode="overlay")
    return styled(figure, name, height=TALL, show_legend=True)


def styled(figure: go.Figure, axis: str, *, height: int, show_legend: bool) -> go.Figure:
    figure.update_layout(
        template=None,
        height=height,
        margin={"l": 48, "r": 12, "t": 28 if show_legend else 12, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        showlegend=show_legend,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        dragmode=False,
    )
    figure.update_xaxes(title={"text": axis, "font": {"size": 12}}, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor="rgba(125,133,144,.4)", nticks=6)
    return figure
