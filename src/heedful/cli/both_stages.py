"""heedful constitution run: both stages one after the other."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from heedful.cli.flow import JSON, OVERRIDES


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    config: Annotated[Path, typer.Argument(help="A heedful.toml.")],
    folder: Annotated[Path | None, typer.Option("--dir", help="Where all goes; runs/NAME of the file by default.")] = None,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Both stages, and a red team before and after each; an interrupted run goes on where it stopped.

    Example: `heedful constitution run recipes/constitutional.toml --dir runs/constitutional`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load
    from heedful.flows.constitution import STAGE1, STAGE2, constitution_run

    folder = folder or Path("runs") / config.stem
    with Bars() as bars:
        found = constitution_run(
            load(config, tuple(overrides or ())), folder, bars, f"heedful constitution run {config} --dir {folder}"
        )
    if as_json:
        emit(found, True)
        return
    revised, preferred = found["revise"], found["prefer"]
    told = f"Stage 1 kept revisions for {revised['num_kept']} of {revised['num_prompts']} prompts. "
    told += f"Stage 2 made {preferred['num_preferences']} preferences, judged by {preferred['judge']}"
    told += f" although: {preferred['why_refused']}." if preferred["forced"] else "."
    print(textwrap.fill(told, 80))
    for stage in (STAGE1, STAGE2):
        _show(f"Held-out prompts after {stage}", found["red_team"][stage])
    print(f"\nreports       {folder / STAGE2 / 'run' / 'report.html'}")
    for stage in (STAGE1, STAGE2):
        print(f"              {folder / 'red-team' / stage / 'report.html'}")


def _show(title: str, figures: dict[str, Any]) -> None:
    from heedful.cli.red_team import cells
    from heedful.cli.terminal import table

    kinds, safe = figures["attacks"]["kinds"], figures["look_alikes"]
    rows = [(f"attacks: {kind}", *cells(row)) for kind, row in kinds.items()]
    if safe:
        rows += [(f"look-alikes: {kind}", *cells(safe["kinds"][kind])) for kind in ("refused", "incoherent")]
    print()
    table(f"{title}, % of answers", ("", "before", "after", "difference"), rows)
