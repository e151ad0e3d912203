"""The report's plots. They hold numbers only: no text that a model wrote gets in here."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

BEFORE, AFTER, QUIET = "#8a8f98", "#1f6feb", "#d0a215"
Rows = list[dict[str, Any]]


def script() -> str:
    """plotly's own JavaScript, so that the page needs no network."""
    return str(get_plotlyjs())


def figures(metrics: Rows, sides: dict[str, Rows], kl_target: float | None) -> list[dict[str, str]]:
    """Title, caption and JSON of each figure that there is data for."""
    ppo = [row for row in metrics if row["stage"] == "ppo"]
    reward = [row for row in metrics if row["stage"] == "reward"]
    found: list[tuple[str, str, go.Figure]] = []
    if ppo:
        curves = {"reward": "training rollouts", "heldout_reward": "held-out prompts"}
        found.append(("Reward over PPO steps", "Mean of the reward model.", _lines(ppo, curves, "PPO step")))
        kl = _lines(ppo, {"kl_policy_ref": "KL(policy, reference)"}, "PPO step")
        if kl_target:
            kl.add_hline(y=kl_target, line_dash="dot", line_color=QUIET, annotation_text="target")
        found.append(("Distance from the base", "Sequence KL in nats; the leash.", kl))
    for name in ("reward", "rubric"):
        if sides["before"] and sides["after"]:
            found.append((f"{name.capitalize()} before and after", "Held-out answers.", _histogram(sides, name)))
    if ppo:
        found.append(("Entropy", "Nats a token; a collapse shows here.", _lines(ppo, {"entropy": "entropy"}, "PPO step")))
        found.append(("Length", "Mean tokens of a rollout.", _lines(ppo, {"length": "length"}, "PPO step")))
        found.append(
            ("Clip fraction", "Tokens outside the trust region.", _lines(ppo, {"clip_fraction": "clipped"}, "PPO step"))
        )
        value = {"value_loss": "value loss"}
        found.append(("Value loss", "Squared error of the value head.", _lines(ppo, value, "PPO step")))
    if reward:
        curves = {"loss": "loss", "accuracy": "accuracy in training", "heldout_accuracy": "held-out accuracy"}
        found.append(("Reward model", "Loss and share of pairs right.", _lines(reward, curves, "optimiser step")))
    return [{"title": title, "caption": caption, "json": _json(figure)} for title, caption, figure in found]


def _json(figure: go.Figure) -> str:
    # "</" would end the script element that holds the numbers.
    return str(figure.to_json()).replace("</", "<\\/")


def _lines(rows: Rows, curves: dict[str, str], axis: str) -> go.Figure:
    figure = go.Figure()
    for colour, (name, label) in zip((AFTER, QUIET, BEFORE), curves.items(), strict=False):
        points = [(row["step"] + 1, row[name]) for row in rows if name in row and math.isfinite(row[name])]
        if points:
            mode = "markers+lines" if len(points) < 40 else "lines"
            x, y = [list(part) for part in zip(*points, strict=True)]
            figure.add_scatter(x=x, y=y, name=label, mode=mode, line_color=colour, marker_size=6)
    return _styled(figure, axis, show_legend=len(curves) > 1)


def _histogram(sides: dict[str, Rows], name: str) -> go.Figure:
    figure = go.Figure()
    values = {side: [row[name] for row in rows if math.isfinite(row[name])] for side, rows in sides.items()}
    every = [value for side in values.values() for value in side]
    width = (max(every) - min(every)) / 24 if every and max(every) > min(every) else 0.1
    start = min(every) if every else 0.0
    for side, colour in (("before", BEFORE), ("after", AFTER)):
        bins = {"start": start, "size": width, "end": start + 26 * width}
        figure.add_histogram(x=values[side], name=side, marker_color=colour, opacity=0.6, xbins=bins)
    figure.update_layout(barmode="overlay")
    return _styled(figure, name, show_legend=True)


def _styled(figure: go.Figure, axis: str, *, show_legend: bool) -> go.Figure:
    figure.update_layout(
        template=None,
        height=260,
        margin={"l": 46, "r": 12, "t": 12, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#7d8590", "size": 12},
        showlegend=show_legend,
        legend={"orientation": "h", "y": 1.14, "x": 0},
    )
    figure.update_xaxes(title=axis, gridcolor="rgba(125,133,144,.2)", zeroline=False)
    figure.update_yaxes(gridcolor="rgba(125,133,144,.2)", zerolinecolor="rgba(125,133,144,.4)")
    return figure
