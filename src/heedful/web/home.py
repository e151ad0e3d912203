"""The folder of a labelling server: its database, and the key that signs its sessions."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from heedful.errors import DataError

HOME, DATABASE, HOSTS, HTTPS = "HEEDFUL_LABEL_HOME", "HEEDFUL_DATABASE_URL", "HEEDFUL_LABEL_HOSTS", "HEEDFUL_LABEL_HTTPS"
RUNS = "HEEDFUL_RUNS"
NAME = "labels.sqlite3"  # of the database in it


def secret_path(home: Path) -> Path:
    return home / "secret-key"


def configure(
    home: Path,
    *,
    database: str | None = None,
    hosts: Sequence[str] = (),
    https: bool = False,
    runs: Sequence[Path] = (),
) -> None:
    """Makes the folder where there is none, tells Django of it and brings the database to the present schema.

    runs: folders below which run directories are shown.
    """
    missing = next((folder for folder in runs if not folder.is_dir()), None)
    if missing is not None:
        raise DataError(f"{missing}: no such folder; --runs names one below which there are run directories")
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_secret(secret_path(home))
        if not database:
            (home / NAME).touch(mode=0o600)  # before SQLite makes it, readable by others where the folder is
    except OSError as error:
        raise DataError(f"{home}: cannot be written ({error.strerror}); name another folder with --home") from None
    os.environ[HOME] = str(home)
    if database:
        os.environ[DATABASE] = database
    if hosts:
        os.environ[HOSTS] = ",".join(hosts)
    if https:
        os.environ[HTTPS] = "1"
    if runs:
        os.environ[RUNS] = json.dumps([str(folder.resolve()) for folder in runs])
    os.environ["DJANGO_SETTINGS_MODULE"] = "heedful.web.settings"
    _set_up()


def _make_secret(path: Path) -> None:
    """Whole or not at all, and of two who make it at once the first one's counts."""
    if path.exists():
        return
    with NamedTemporaryFile("w", dir=path.parent, prefix=".secret-key-") as file:  # readable by its owner alone
        file.write(secrets.token_urlsafe(64))
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, path)


def _set_up() -> None:
    import django
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import call_command
    from django.db.utils import Error

    try:
        django.setup()
    except ValueError as error:
        raise DataError(
            f"--database (or {DATABASE}) is no database's address ({_first_line(error)}); write it as "
            "postgres://user:password@host/name"
        ) from None
    except ImproperlyConfigured as error:
        raise DataError(f"{_first_line(error)}; for PostgreSQL: pip install 'heedful[postgres]'") from None
    try:
        call_command("migrate", interactive=False, verbosity=0)
    except Error as error:
        raise DataError(
            f"the database cannot be used ({_first_line(error)}); check its address, and that it is running"
        ) from None


def without_password(address: str) -> str:
    """A database's address as it may be shown: without password and options."""
    scheme, _, rest = address.partition("://")
    login, at, place = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}{at}{place.partition('?')[0]}" if rest else "--database"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".")
