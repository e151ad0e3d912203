"""A copy of a running server's folder that is whole at one moment."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp

from heedful.errors import DataError
from heedful.web.home import DATABASE, NAME, secret_path


def back_up(home: Path, output: Path) -> Path:
    """Copies database and secret key of `home` to the new folder `output`, which can be served as it is. Returns it.

    SQLite reads the database as it is at one moment, while answers go on coming in. Raises DataError
    where output exists, there is no SQLite database, or the copy does not pass SQLite's own check.
    """
    if os.environ.get(DATABASE):
        raise DataError("this copies a SQLite database; of a PostgreSQL take pg_dump, and the file secret-key beside it")
    source = home / NAME
    if not source.exists():
        raise DataError(f"{source} does not exist; give the server's folder with --home")
    if output.exists():
        raise DataError(f"{output} exists already; name a new folder, so that no earlier copy is written over")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        half = Path(mkdtemp(prefix=f".{output.name}-", dir=output.parent))  # readable by its owner alone
        try:
            with closing(sqlite3.connect(source)) as running, closing(sqlite3.connect(half / NAME)) as copy:
                running.backup(copy)
                (said,) = copy.execute("PRAGMA integrity_check").fetchone()
            if said != "ok":
                raise DataError(f"{source}: the copy is damaged ({said}); copy again, and check the disk")
            shutil.copy2(secret_path(home), half)
            half.rename(output)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    except (OSError, sqlite3.Error) as error:
        raise DataError(f"{output} cannot be written ({getattr(error, 'strerror', None) or error}); choose another") from None
    return output
