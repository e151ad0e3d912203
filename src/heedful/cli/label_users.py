"""heedful label users: who may label, who may manage, and which programs may act for them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from heedful.cli.flow import JSON
from heedful.cli.labelling import DATABASE, FOLDER, HOME

users = typer.Typer(help="Who may label, and who may manage.", no_args_is_help=True)


@users.command()
def invite(
    home: HOME = FOLDER,
    project: Annotated[str | None, typer.Option("--project", help="The project that the labeler joins.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Invite an admin instead.")] = False,
    manager: Annotated[bool, typer.Option("--manager", help="Invite a manager of the project, not a labeler.")] = False,
    url: Annotated[str, typer.Option(help="Where the page is reached.")] = "http://localhost:8765",
    database: DATABASE = None,
    as_json: JSON = False,
) -> None:
    """Make a link by which one person joins; it is shown once.

    Example: `heedful label users invite --project house`
    """
    from heedful.cli.terminal import emit
    from heedful.web import home as web_home

    if admin == (project is not None) or (admin and manager):
        raise typer.BadParameter("give either --project, with --manager or without, or --admin")
    web_home.configure(home, database=database)
    from django.urls import reverse

    from heedful.web.labelling import invitations
    from heedful.web.labelling.files import project_named

    token = invitations.invite(project_named(project) if project else None, admin=admin, manager=manager)
    link = url.rstrip("/") + reverse("join", args=[token])
    emit({"link": link, "valid_days": invitations.VALID_DAYS}, as_json, link)


@users.command("list")
def list_(home: HOME = FOLDER, database: DATABASE = None, as_json: JSON = False) -> None:
    """Who has joined.

    Example: `heedful label users list`
    """
    from heedful.cli.terminal import emit, table
    from heedful.web import home as web_home

    web_home.configure(home, database=database)
    from heedful.web.labelling.models import User

    found: list[dict[str, Any]] = [
        {
            "name": user.get_username(),
            "role": "admin" if user.is_staff else "manager" if user.managed.exists() else "labeler",
            "projects": [project.name for project in user.projects.order_by("name")],
            "judgements": user.judgements.count(),
        }
        for user in User.objects.order_by("username")
    ]
    if as_json:
        emit({"users": found}, True)
        return
    rows = [(str(u["name"]), str(u["role"]), ", ".join(u["projects"]), str(u["judgements"])) for u in found]
    table("Users", ("name", "role", "projects", "judgements"), rows)


@users.command("token")
def make_token(
    person: Annotated[str, typer.Argument(metavar="NAME", help="Whose rights the token has: the name they log in by.")],
    name: Annotated[str, typer.Option("--name", help="What the token is for.")],
    home: HOME = FOLDER,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 90,
    database: DATABASE = None,
    as_json: JSON = False,
) -> None:
    """Make a token by which a program uses the API with a person's rights; it is shown once.

    Example: `heedful label users token ada --name "nightly export" --days 30`
    """
    from heedful.cli.terminal import emit
    from heedful.errors import DataError
    from heedful.web import home as web_home

    web_home.configure(home, database=database)
    from heedful.web.labelling import tokens
    from heedful.web.labelling.models import User

    owner = User.objects.filter(username=person).first()
    if owner is None:
        raise DataError(f"nobody is called {person!r}; 'heedful label users list' shows who has joined")
    made = tokens.make(owner, name, days)
    emit({"token": made, "owner": person, "name": name, "valid_days": days}, as_json, made)


@users.command("tokens")
def list_tokens(home: HOME = FOLDER, database: DATABASE = None, as_json: JSON = False) -> None:
    """The tokens there are, without what is secret of them; used: by the minute.

    Example: `heedful label users tokens`
    """
    from datetime import datetime

    from heedful.cli.terminal import emit, table
    from heedful.web import home as web_home

    web_home.configure(home, database=database)
    from heedful.web.labelling.models import ApiToken

    def moment(at: datetime | None) -> str | None:
        return at.isoformat(timespec="minutes") if at else None

    found = [
        {
            "id": known.pk,
            "owner": known.owner.get_username(),
            "name": known.name,
            "expires_at": moment(known.expires_at),
            "used_at": moment(known.used_at),
        }
        for known in ApiToken.objects.select_related("owner").order_by("pk")
    ]
    if as_json:
        emit({"tokens": found}, True)
        return
    columns = ("id", "owner", "name", "expires", "used")
    table("Tokens", columns, [tuple(str(value or "never") for value in row.values()) for row in found])


@users.command()
def revoke(
    number: Annotated[int, typer.Argument(metavar="ID", help="The token's, as 'heedful label users tokens' shows it.")],
    home: HOME = FOLDER,
    database: DATABASE = None,
    as_json: JSON = False,
) -> None:
    """Make a token worth nothing, at once.

    Example: `heedful label users revoke 3`
    """
    from heedful.cli.terminal import emit
    from heedful.errors import DataError
    from heedful.web import home as web_home

    web_home.configure(home, database=database)
    from heedful.web.labelling import tokens
    from heedful.web.labelling.models import ApiToken

    found = ApiToken.objects.select_related("owner").filter(pk=number).first()
    if found is None:
        raise DataError(f"there is no token {number}; 'heedful label users tokens' shows those there are")
    tokens.revoke(found)
    owner = found.owner.get_username()
    emit({"revoked": number, "owner": owner, "name": found.name}, as_json, f"revoked {owner}'s token {found.name!r}")
