"""Groups of commands that are read when one of theirs is asked for, so that help and completion stay quick.

typer builds each command from its signature, and sixty of them take longer than python and typer need to start.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


def add_group(app: typer.Typer, name: str, about: str, *parts: str) -> None:
    """Adds the group that the file of this name holds as `app`. parts: files whose `register` adds commands to it.

    about: its line in the help of the app that it is added to.
    """

    class Group(TyperGroup):
        """Its `commands` are there once somebody looks at them."""

        _found: Any = None

        @property
        def commands(self) -> Any:
            if self._found is None:
                group = import_module(f"heedful.cli.{name}").app
                for part in parts:
                    import_module(f"heedful.cli.{part}").register(group)
                self._found = typer.main.get_group(group).commands
            return self._found

        @commands.setter
        def commands(self, given: Any) -> None:
            assert not given, "a group's commands are those of its file"

    app.add_typer(typer.Typer(cls=Group, help=about, no_args_is_help=True), name=name)
