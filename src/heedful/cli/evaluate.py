"""heedful evaluate toxicity, refusal, all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON, run_directory

app = typer.Typer(help="Measure completions.", no_args_is_help=True)

COMPLETIONS = Annotated[Path, typer.Option("--completions", help="A file of completions.")]


@app.command()
def toxicity(completions: COMPLETIONS, as_json: JSON = False) -> None:
    """Mean probability of the negative class, with a bootstrap over prompts.

    Example: `heedful evaluate toxicity --completions completions.jsonl --json`
    """
    from heedful.cli.terminal import emit
    from heedful.data.formats import read_completions
    from heedful.evaluation.compare import toxicity_of

    found = toxicity_of(read_completions(completions))
    interval = found["toxicity"]
    bounds = "" if interval["low"] is None else f" [{interval['low']:.4f}, {interval['high']:.4f}]"
    emit(found, as_json, f"toxicity {interval['estimate']:.4f}{bounds}, share at or above 0.5: {found['share_toxic']:.3f}")


@app.command()
def refusal(
    completions: COMPLETIONS,
    prompts: Annotated[Path, typer.Option("--prompts", help="The prompts, tagged red-team where harmful.")],
    as_json: JSON = False,
) -> None:
    """Refusal rates on harmful and on safe prompts, with Wilson intervals.

    Example: `heedful evaluate refusal --prompts prompts.jsonl --completions completions.jsonl`
    """
    from heedful.cli.terminal import emit
    from heedful.data.formats import read_completions, read_prompts
    from heedful.evaluation.compare import refusals_of
    from heedful.report.numbers import percent

    found = refusals_of(read_prompts(prompts), read_completions(completions))
    lines = [f"{name:<8}{percent(rate) if rate else 'no such prompt'}" for name, rate in found.items()]
    emit(found, as_json, "\n".join(lines))


@app.command(name="all")
def everything(
    folder: Annotated[Path, typer.Argument(help="A run directory whose evaluation has finished.", metavar="RUN")],
    as_json: JSON = False,
) -> None:
    """Every quantity of a run, before and after, with the interval of the paired difference.

    Example: `heedful evaluate all heedful-demo --json`
    """
    from heedful.cli.terminal import emit, table
    from heedful.errors import StoreError
    from heedful.report.build import compare_table
    from heedful.store import read_json

    compared = run_directory(folder) / "evaluate" / "compare.json"
    if not compared.exists():
        raise StoreError(f"{folder}: the evaluation of this run has not finished; give the command again that began the run")
    found = read_json(compared)
    if as_json:
        emit(found, True)
    else:
        table("Held-out prompts, before and after", ("", "before", "after", "difference", ""), compare_table(found))
