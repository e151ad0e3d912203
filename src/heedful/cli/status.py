"""heedful status: where a run and its rounds stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON, run_directory


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    folder: Annotated[Path, typer.Argument(help="A run directory, also one of several rounds.", metavar="RUN")],
    as_json: JSON = False,
) -> None:
    """Show where a run stands, round by round: what is at work, and whether it waits for people.

    Example: `heedful status runs/first`
    """
    from heedful.cli.terminal import emit, printable, table
    from heedful.rounds import rounds_in
    from heedful.web.runs.standing import config_of, standing

    places = rounds_in(folder) or [run_directory(folder)]
    found = [(place.name, standing(place, config_of(place))) for place in places]
    if as_json:
        rows = [
            {"name": name, "state": now.state, "stage": now.stage, "done": now.done, "total": now.total, "note": now.note}
            for name, now in found
        ]
        emit({"run": str(folder), "rounds": rows}, True)
        return
    rows_shown = []
    for name, now in found:
        count = f"{now.done}/{now.total}" if now.total else ""
        rows_shown.append((name, now.state, now.stage if now.state != "done" else "", count))
    table("Where it stands", ("", "state", "stage", ""), rows_shown)
    for _, now in found:
        if now.waiting:
            print(printable(f"\n{now.note}\nproject {now.waiting['project']} on {now.waiting['server']}"))
