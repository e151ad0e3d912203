"""heedful serve: labelling, runs and chat in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.labelling import DATABASE, FOLDER, HOME, HTTPS, LISTEN, NAMES, PORT, serve_pages


def register(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    runs: Annotated[
        list[Path] | None,
        typer.Option("--runs", metavar="DIR", help="A folder below which runs are shown; may be repeated. Default: here."),
    ] = None,
    home: HOME = FOLDER,
    host: LISTEN = "127.0.0.1",
    port: PORT = 8765,
    database: DATABASE = None,
    allow_host: NAMES = None,
    https: HTTPS = False,
) -> None:
    """Serve labelling, runs and chat until Ctrl-C. Nobody gets in but by invitation; runs and chat are for admins.

    Example: `heedful serve --runs runs`
    """
    from heedful.talking import answer

    serve_pages(home, host, port, database=database, names=allow_host or [], https=https, runs=runs or [Path()], answer=answer)
