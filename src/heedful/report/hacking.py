"""The hacking monitor's section: reward beside gold over the distance, signs over time, figures with limits."""

from __future__ import annotations

import math
import re
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from heedful.evaluation.limits import Limits
from heedful.evaluation.overoptimisation import Curve
from heedful.report.findings import TELLING_CURVE
from heedful.report.numbers import finite, plural
from heedful.report.plots import (
    ACCENT,
    GREY,
    MAX_MARKERS,
    METHODS,
    SMALL,
    TALL,
    Figure,
    Rows,
    figure_of,
    lines_of,
    styled,
    thinned,
)

WARN, STOP = "#bf8700", "#d1242f"
CURVE_POINTS = 60
MAX_RUNS = 8  # stretches of evaluations that the table names
MAX_EVALUATIONS = 500  # in the picture of the signs
# Title, caption and limits of what the monitor measures.
WATCHED = {
    "length_ratio": ("Length of answers", "Times the reference's.", (Limits.length_ratio,)),
    "distinct_ratio": ("Variety", "Different pairs of words, times the reference's.", (Limits.distinct,)),
    "more_truncated": ("More answers cut off", "Share, less the reference's.", (Limits.truncated,)),
    "more_safe_refusals": ("More safe prompts refused", "Share, less the reference's.", (Limits.refusals,)),
    "repeated": ("Repetition", "Share of an answer's 4-grams that stood in it before.", (Limits.repeated,)),
    "reward_length_correlation": (
        "Reward and length",
        "Correlation, last 128 rollouts.",
        (-Limits.correlation, Limits.correlation),
    ),
}
LEVEL_NAMES = ("ok", "warn", "stop")


def monitor_figures(metrics: Rows, signs: Rows, summary: dict[str, Any]) -> list[Figure]:
    """Reward and gold over the distance, and when which sign held; nothing for a run that was not watched."""
    rows = _watched(metrics)
    found = []
    if any(finite(row.get("heldout_reward")) for row in rows):
        found.append(_over_distance(rows, summary.get("align", {})))
    if any(row.get("signs") for row in signs):
        found.append(_timeline(rows, signs))
    return found


def limit_figures(metrics: Rows, kl_target: float | None) -> list[Figure]:
    """Small multiples: what the monitor measures, each with the limit beyond which it is a sign."""
    rows = _watched(metrics)
    if not rows:
        return []
    shown = dict(WATCHED)
    if finite(kl_target) and kl_target > 0:
        shown["kl_policy_ref"] = ("Distance", "Sequence KL in nats.", (Limits.kl_ratio * kl_target,))
    for name in ("entropy", *sorted({key for row in rows for key in row if key.startswith("ensemble_sd")})):
        first = next((row[name] for row in rows if finite(row.get(name))), None)
        if first is not None and first > 0:
            ratio = Limits.entropy if name == "entropy" else Limits.disagreement
            title = "Entropy" if name == "entropy" else "Disagreement of the ensemble"
            shown[name] = (title, f"Limit: {ratio:g} times the first step's.", (ratio * first,))
    found = [_limited(rows, name, *about) for name, about in shown.items() if any(finite(row.get(name)) for row in rows)]
    level = lines_of(rows, {"hacking_level": ("level", ACCENT)}, "step", height=SMALL)
    level.update_traces(line_shape="hv")
    level.update_yaxes(range=[-0.2, 2.2], tickvals=[0, 1, 2], ticktext=list(LEVEL_NAMES))
    return [figure_of("Level", "The worst sign that holds.", level), *found]


def sign_table(metrics: Rows, signs: Rows) -> list[dict[str, Any]]:
    """Each sign: after which evaluations it held, and how it was last said."""
    evaluated = _evaluated(_watched(metrics), signs)
    held: dict[str, dict[str, Any]] = {}
    for row in signs:
        for sign in row.get("signs", ()):
            entry = held.setdefault(sign["name"], {"name": sign["name"], "steps": set()})
            entry["steps"].add(row["steps"])
            entry |= {"level": sign["level"], "said": sign["said"]}
    return [entry | {"steps": _runs(entry["steps"], evaluated)} for entry in held.values()]


def was_watched(metrics: Rows) -> bool:
    return bool(_watched(metrics))


def _watched(metrics: Rows) -> Rows:
    """Steps that the monitor saw."""
    return [row for row in metrics if row.get("stage") in METHODS and "hacking_level" in row]


def _evaluated(rows: Rows, signs: Rows) -> list[int]:
    """After how many steps there was an evaluation."""
    return sorted({row["step"] + 1 for row in rows if finite(row.get("heldout_reward"))} | {row["steps"] for row in signs})


def _runs(steps: set[int], evaluated: list[int]) -> str:
    """ "4, 8-16": evaluations in a row joined."""
    runs: list[list[int]] = []
    for before, step in zip([None, *evaluated], evaluated, strict=False):
        if step in steps:
            if runs and before == runs[-1][-1]:
                runs[-1].append(step)
            else:
                runs.append([step])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    if len(shown) > MAX_RUNS:
        between = f"… ({len(steps):,} of {len(evaluated):,} evaluations) …"
        shown = [*shown[: MAX_RUNS // 2], between, *shown[-MAX_RUNS // 2 :]]
    return ", ".join(shown)


def _over_distance(rows: Rows, align: dict[str, Any]) -> Figure:
    """Upper panel: the reward; lower: gold, with its curve and where that is greatest, if the curve explains enough."""
    golden = any(finite(row.get("heldout_gold")) for row in rows)
    panels = make_subplots(rows=1 + golden, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    for place, (name, colour) in enumerate((("heldout_reward", GREY), ("heldout_gold", ACCENT))[: 1 + golden], start=1):
        points = thinned(
            [
                (math.sqrt(max(0.0, row["kl_policy_ref"])), row[name], row["step"] + 1)
                for row in rows
                if finite(row.get("kl_policy_ref")) and finite(row.get(name))
            ]
        )
        label = name.removeprefix("heldout_")
        x, y, steps = ([point[n] for point in points] for n in range(3))
        panels.add_scatter(
            x=x,
            y=y,
            text=[f"after {step} steps" for step in steps],
            name=label,
            mode="markers",
            row=place,
            col=1,
            marker={"size": 8 if len(points) <= MAX_MARKERS else 4, "symbol": "diamond", "color": colour},
        )
        panels.update_yaxes(title={"text": label, "font": {"size": 12}}, row=place, col=1)
    caption = "Mean over held-out answers, one diamond an evaluation; d = √KL."
    curve = (align.get("hacking") or {}).get("curve")
    reach = max((math.sqrt(max(0.0, row["kl_policy_ref"])) for row in rows if finite(row.get("kl_policy_ref"))), default=0.0)
    if not golden:
        caption += " There was no gold reward to hold it against (monitor.gold)."
    elif curve and curve["explained"] >= TELLING_CURVE and reach > 0:
        fitted = Curve(**curve)
        x = [reach * n / CURVE_POINTS for n in range(CURVE_POINTS + 1)]
        panels.add_scatter(
            x=x, y=[fitted.gold(d) for d in x], name="curve", mode="lines", line={"color": ACCENT, "dash": "dot"}, row=2, col=1
        )
        caption += f" The curve R₀ + d (a − b log d) explains {100 * curve['explained']:.0f}% of gold."
        if finite(curve["peak"]):
            panels.add_vline(x=curve["peak"], line_color=WARN, line_dash="dash")
            caption += f" Its peak is at d = {curve['peak']:.2f}."
    elif curve:
        caption += (
            f" The over-optimisation curve explains {100 * max(0.0, curve['explained']):.0f}% of gold, too little to be drawn."
        )
    title = "Reward beside gold" if golden else "Reward over the distance"
    figure = styled(panels, "", height=TALL + golden * 60, show_legend=False)
    figure.update_xaxes(title={"text": "distance d from the reference, √nats", "font": {"size": 12}}, row=1 + golden, col=1)
    figure.update_layout(margin={"l": 62})
    return figure_of(title, caption, figure)


def _timeline(rows: Rows, signs: Rows) -> Figure:
    """A square where a sign held after an evaluation, and a dot for each evaluation."""
    evaluated = _evaluated(rows, signs)
    every = -(-len(evaluated) // MAX_EVALUATIONS)
    names = list(dict.fromkeys(sign["name"] for row in signs for sign in row.get("signs", ())))
    # By level and sign; of several evaluations in one place the last at which it held.
    marks: dict[tuple[str, str], dict[int, int]] = {}
    for place, row in enumerate(signs):
        for sign in row.get("signs", ()):
            marks.setdefault((sign["level"], sign["name"]), {})[place // every] = row["steps"]
    # A name may hold that of a reward term; plotly would read tags in it.
    labels = {name: re.sub(r"[^\w ./-]", "", name) for name in names}
    figure = go.Figure()
    for level, colour in (("warn", WARN), ("stop", STOP)):
        held = [(step, labels[name]) for (of, name), steps in marks.items() if of == level for step in steps.values()]
        if held:
            x, y = [list(part) for part in zip(*sorted(held), strict=True)]
            figure.add_scatter(x=x, y=y, name=level, mode="markers", marker={"size": 12, "symbol": "square", "color": colour})
    quiet = evaluated[every - 1 :: every]
    figure.add_scatter(
        x=quiet, y=["evaluation"] * len(quiet), name="evaluation", mode="markers", marker={"size": 5, "color": GREY}
    )
    figure = styled(figure, "after this many steps", height=max(TALL, 28 * len(names) + 118), show_legend=False)
    rows_from_below = ["evaluation", *(labels[name] for name in reversed(names))]
    figure.update_yaxes(categoryorder="array", categoryarray=rows_from_below, nticks=0, automargin=True)
    figure.update_xaxes(range=[0, 1.04 * max(evaluated)])
    caption = f"After each of {plural(len(evaluated), 'evaluation')}; amber warns, red stops the run."
    if every > 1:
        caption += f" A square stands for {every} evaluations, at one of which at least the sign held."
    return figure_of("When which sign held", caption, figure)


def _limited(rows: Rows, name: str, title: str, caption: str, limits: tuple[float, ...]) -> Figure:
    figure = lines_of(rows, {name: (name, ACCENT)}, "step", height=SMALL)
    values = [row[name] for row in rows if finite(row.get(name))]
    for limit in limits:
        figure.add_hline(y=limit, line_color=WARN, line_dash="dash")
    # plotly's own range would leave the limit out of sight.
    low, high = min(*values, *limits), max(*values, *limits)
    room = 0.08 * (high - low) or 0.1
    figure.update_yaxes(range=[low - room, high + room])
    return figure_of(title, caption, figure)
