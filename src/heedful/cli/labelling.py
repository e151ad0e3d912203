"""heedful label serve, import, export, status, users: the labelling server and what goes in and out of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from heedful.cli.flow import JSON

HOME = Annotated[Path, typer.Option("--home", help="The server's folder: its database and its secret key.")]
DATABASE = Annotated[
    str | None,
    typer.Option(
        "--database", envvar="HEEDFUL_DATABASE_URL", help="postgres://user:password@host/name; default: SQLite in --home."
    ),
]
PROJECT = Annotated[str, typer.Option("--project", help="The project's name.")]
FOLDER = Path("labels")

users = typer.Typer(help="Who may label, and who may manage.", no_args_is_help=True)


def register(label: typer.Typer) -> None:
    for command in (serve, import_, export, status):
        label.command(command.__name__.rstrip("_"))(command)
    label.add_typer(users, name="users")


def serve(
    home: HOME = FOLDER,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    database: DATABASE = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A name under which people reach the page; may be repeated.")
    ] = None,
    https: Annotated[
        bool, typer.Option("--https", help="A proxy before the page speaks TLS: cookies travel by it alone.")
    ] = False,
) -> None:
    """Serve the labelling pages until Ctrl-C. Nobody gets in but by invitation.

    Example: `heedful label serve --home labels`
    """
    from heedful.web import home as web_home
    from heedful.web import serve as web

    names = allow_host or []
    local = ["localhost", "127.0.0.1", "[::1]"]
    web_home.configure(home, database=database, hosts=[*local, host, *names], https=https)

    def ready(taken: int) -> None:
        base = web.address(host, taken, names=names, https=https)
        link = web.first_admin_link(base)
        if link is not None:
            print(f"there is no admin yet; whoever opens this link becomes one, once:\n{link}", file=sys.stderr)
        behind = f", this machine's port {taken}" if https else ""
        print(f"labelling pages on {base}{behind} (Ctrl-C ends)", file=sys.stderr, flush=True)

    web.serve(host, port, https=https, ready=ready)


def import_(
    project: PROJECT,
    prompts: Annotated[Path, typer.Option("--prompts", help="The prompts that were completed.")],
    completions: Annotated[Path, typer.Option("--completions", help="Two to nine completions of each.")],
    home: HOME = FOLDER,
    criterion: Annotated[str, typer.Option(help="What makes a completion better.")] = "helpfulness",
    overlap: Annotated[int, typer.Option(min=1, max=50, help="Labelers for each set.")] = 3,
    database: DATABASE = None,
    as_json: JSON = False,
) -> None:
    """Make a project of prompts and their completions.

    Example: `heedful label import --project house --prompts prompts.jsonl --completions completions.jsonl`
    """
    from heedful.cli.terminal import emit
    from heedful.data.formats import read_completions, read_prompts
    from heedful.web import home as web_home

    read = read_prompts(prompts), read_completions(completions)
    web_home.configure(home, database=database)
    from heedful.web.labelling.files import create_project

    made = create_project(project, *read, criterion=criterion, overlap=overlap)
    sets = made.sets.count()
    emit({"project": made.name, "sets": sets}, as_json, f"project {made.name!r}: {sets} sets, {overlap} labelers each")


def export(
    project: PROJECT,
    output: Annotated[Path, typer.Option("--output", help="Where the judgements go.")],
    home: HOME = FOLDER,
    database: DATABASE = None,
    as_json: JSON = False,
) -> None:
    """Write a project's judgements as records, for `heedful consensus`.

    Example: `heedful label export --project house --output judgements.jsonl`
    """
    from heedful.cli.terminal import emit
    from heedful.store import write_jsonl
    from heedful.web import home as web_home

    web_home.configure(home, database=database)
    from heedful.web.labelling import files

    judgements = files.export(files.project_named(project), None)
    write_jsonl(output, judgements)
    emit({"judgements": len(judgements), "output": str(output)}, as_json, f"{len(judgements)} judgements in {output}")


def status(home: HOME = FOLDER, database: DATABASE = None, as_json: JSON = False) -> None:
    """How far each project is.

    Example: `heedful label status`
    """
    from heedful.cli.terminal import emit, table
    from heedful.web import home as web_home

    web_home.configure(home, database=database)
    from heedful.web.labelling.assignment import standing
    from heedful.web.labelling.models import Project

    found = [(project, standing(project)) for project in Project.objects.order_by("name")]
    if as_json:
        rows = [
            {
                "project": p.name,
                "judgements": s.judgements,
                "wanted": s.wanted,
                "finished_sets": s.finished_sets,
                "sets": s.sets,
            }
            for p, s in found
        ]
        emit({"projects": rows}, True)
        return
    columns = ("project", "judgements", "sets finished", "labelers", "")
    table(
        "Labelling",
        columns,
        [
            (
                p.name,
                f"{s.judgements}/{s.wanted}",
                f"{s.finished_sets}/{s.sets}",
                str(p.members.count()),
                "paused" if p.paused else "",
            )
            for p, s in found
        ],
    )


@users.command()
def invite(
    home: HOME = FOLDER,
    project: Annotated[str | None, typer.Option("--project", help="The project that the labeler joins.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Invite an admin instead.")] = False,
    url: Annotated[str, typer.Option(help="Where the page is reached.")] = "http://localhost:8765",
    database: DATABASE = None,
    as_json: JSON = False,
) -> None:
    """Make a link by which one person joins; it is shown once.

    Example: `heedful label users invite --project house`
    """
    from heedful.cli.terminal import emit
    from heedful.web import home as web_home

    if admin == (project is not None):
        raise typer.BadParameter("give either --project or --admin")
    web_home.configure(home, database=database)
    from django.urls import reverse

    from heedful.web.labelling import invitations
    from heedful.web.labelling.files import project_named

    token = invitations.invite(project_named(project) if project else None, admin=admin)
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
            "role": "admin" if user.is_staff else "labeler",
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
