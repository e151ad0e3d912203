"""heedful constitution prefer: AI feedback on the model's own answers."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from heedful.cli.flow import JSON, OVERRIDES


def register(app: typer.Typer) -> None:
    app.command()(prefer)


def prefer(
    config: Annotated[
        Path, typer.Option("--config", help="heedful.toml; its section [prefer] says who answers and who judges.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Run directory.")],
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Compare the model's own answers by a judge that passed the gate; an interrupted job goes on with what is finished.

    Example: `heedful constitution prefer --config heedful.toml --output run`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load
    from heedful.stages.prefer import STAGE
    from heedful.stages.prefer import prefer as run

    with Bars() as bars:
        result = run(load(config, tuple(overrides or ())), output, bars)
    emit(result, as_json, f"{_told(result)}\nsaved in {output / STAGE}")


def _told(result: dict[str, Any]) -> str:
    from heedful.report.numbers import percent

    accuracy = result["gate_accuracy"]
    by = f", right on {percent(accuracy)} of the gate's pairs" if accuracy else ""
    left = ", ".join(f"{count} {reason}" for reason, count in result["left_out"].items())
    lines = [
        f"{result['num_preferences']} preferences and {result['num_judgements']} judgements of {result['num_prompts']} prompts "
        f"by {result['judge']}{by}." + (f" Left out: {left}." if left else ""),
    ]
    if result["contrasted"]["pairs"]:
        lines.append(
            f"Of {result['contrasted']['pairs']} pairs under a good and a bad instruction it prefers the good side in "
            f"{result['contrasted']['agreed']}."
        )
    if result["forced"]:
        lines.append(f"forced: {result['why_refused']}.")
    return "\n".join(textwrap.fill(line, 80) for line in lines)
