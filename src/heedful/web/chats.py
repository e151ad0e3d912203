"""What was said of answers in the chats of a server, read by another process: to export it, or to learn from it."""

from __future__ import annotations

from pathlib import Path

from heedful.errors import DataError
from heedful.opinions import Opinions
from heedful.web import home as web_home


def read_chats(home: Path, *, database: str | None = None, named: str | None = None, run: Path | None = None) -> Opinions:
    """Everybody's thumbs and corrections. named: of chats with the run of this name on the page alone. run: of chats with this
    run directory, its rounds or its versions alone.

    Raises DataError where there is no server's folder, and for a database that cannot be used.
    """
    if not database and not (home / web_home.NAME).is_file():
        raise DataError(f"{home}: holds no {web_home.NAME}; name the folder of 'heedful serve' with --home, or --database")
    web_home.configure(home, database=database)
    from django.db import connection

    from heedful.web.runs.chatting import records

    try:
        return records(named, run)
    finally:
        connection.close()  # who learns from it takes hours
