"""heedful update: learn from what people said since, or go back to an earlier version."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from heedful.cli.flow import JSON, OVERRIDES
from heedful.cli.labelling import FOLDER


def register(app: typer.Typer) -> None:
    app.command()(update)


def update(
    run: Annotated[Path, typer.Argument(help="A run directory, also one of several rounds.", metavar="RUN")],
    version: Annotated[int | None, typer.Argument(help="With --rollback: the version; the one before by default.")] = None,
    feedback: Annotated[
        list[Path] | None,
        typer.Option("--feedback", help="A folder of 'heedful label export-chat', beside RUN/feedback. Repeatable."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option("--home", help="The folder of 'heedful serve': its chats with RUN are heard as well.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option("--database", help="The server's, postgres://user:password@host/name; default: that of --home."),
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Take an earlier version into use again.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the versions, and which is in use.")] = False,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Learn from the thumbs and corrections that are new; the new version is used only if its evaluation holds.

    They are those of `heedful chat RUN`; with --home or --database those of the web's chat, too. Every version is kept:
    `--list` shows them, `--rollback` takes the one before into use again, `--rollback 0` the run's own.

    Example: `heedful update runs/first --home labels`
    """
    if version is not None and not rollback:
        raise typer.BadParameter("a version belongs to --rollback", param_hint="VERSION")
    if rollback or listing:
        _versions(run, version, rollback, as_json)
        return
    from heedful.cli.terminal import Bars, emit, table
    from heedful.flows.update import update as learn
    from heedful.report.table import compare_table
    from heedful.web.chats import read_chats
    from heedful.web.home import DATABASE, without_password

    chats = {}
    if home is not None or database:  # a database that the environment names asks for nothing by itself
        database = database or os.environ.get(DATABASE)
        place = home or FOLDER
        where = without_password(database) if database else place
        chats[f"the web's chats of {where}"] = read_chats(place, database=database, run=run)
    with Bars() as bars:
        result = learn(run, bars, feedback=feedback or (), chats=chats, overrides=overrides or ())
    if as_json:
        emit(result, True)
        return
    table(
        f"Held-out prompts, version {result['parent']} and version {result['version']}",
        ("", "before", "after", "difference", ""),
        compare_table(result),
    )
    said = f"{result['num_votes']} votes and {result['num_corrections']} corrections"
    if result["promoted"]:
        print(f"\nversion {result['version']}, learned from {said}, is in use; back: heedful update {run} --rollback")
        return
    print(f"\nversion {result['version']}, learned from {said}, is not used; version {result['parent']} stays:")
    _sentences(result["why_not"])


def _sentences(said: list[str]) -> None:
    import textwrap

    from heedful.cli.terminal import printable

    for sentence in said:
        print(textwrap.fill(f"- {printable(sentence)}", 80, subsequent_indent="  "))


def _versions(run: Path, version: int | None, rollback: bool, as_json: bool) -> None:
    from heedful.cli.terminal import emit, table
    from heedful.version_log import Versions

    versions = Versions(run)
    if rollback:
        chosen = versions.roll_back(version)
        emit({"in_use": chosen.version, "policy": str(versions.path(chosen))}, as_json, f"version {chosen.version} is in use")
        return
    used = versions.in_use.version
    if as_json:
        rows: list[dict[str, Any]] = [one.model_dump() for one in versions.listed]
        emit({"in_use": used, "versions": rows}, True)
        return
    table(
        "Versions",
        ("", "from", "learned from", "by", "made", ""),
        [
            (
                str(one.version),
                "" if one.parent is None else str(one.parent),
                f"{one.num_new} new" if one.method else "the run",
                one.method,
                one.created_at[:16].replace("T", " "),
                "in use" if one.version == used else "" if one.promoted else "refused",
            )
            for one in versions.listed
        ],
    )
    for one in versions.listed:
        if one.why_not:
            print(f"\nversion {one.version} was refused:")
            _sentences(one.why_not)
