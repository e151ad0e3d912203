"""heedful constitution: show and init. What works by a constitution has files of its own, which register here."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON

app = typer.Typer()


@app.callback()
def group() -> None:
    """Principles by which a model criticises, revises and compares answers."""


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="A constitution; left out: the bundled one.")] = None,
    as_json: JSON = False,
) -> None:
    """Check a constitution and print its principles; an error names the line.

    Example: `heedful constitution show constitution.toml`
    """
    from heedful.cli.terminal import emit, printable
    from heedful.constitution.principles import load

    found = load(file)
    if as_json:
        emit(found.model_dump(mode="json"), True)
        return
    print(printable(found.name))
    for one in found.principles:
        pair = "" if one.good else "; no good and bad prompt"
        print(printable(f"  {one.name} ({', '.join(one.tags) or 'no tag'}; weight {one.weight:g}{pair})"))
        print(textwrap.fill(printable(one.question), 80, initial_indent="    ", subsequent_indent="    "))
    first = f"Where values compete, '{found.first}' comes first." if found.first else "No value comes before the others."
    about = f"{found.about} " if found.about else ""
    counts = f"{_counted(len(found.principles), 'principle')}, {_counted(len(found.examples), 'worked example')}."
    print(textwrap.fill(printable(f"{about}{counts} {first}"), 80))


@app.command()
def init(file: Annotated[Path, typer.Argument(help="The file to write; one that is there stays as it is.")]) -> None:
    """Write a constitution to start from, with every key explained.

    Example: `heedful constitution init constitution.toml`
    """
    from heedful.constitution.principles import write_starter

    write_starter(file)
    print(f"{file} written; change it, then check it with 'heedful constitution show {file}'")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
