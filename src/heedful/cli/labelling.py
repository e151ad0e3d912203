"""heedful label serve, import, export, quality, status: the labelling server and what goes in and out of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
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


def register(label: typer.Typer) -> None:
    from heedful.cli.label_users import users  # which takes its options from here

    for command in (serve, import_, export, export_chat, quality, backup, status):
        label.command(command.__name__.rstrip("_").replace("_", "-"))(command)
    label.add_typer(users, name="users")


LISTEN = Annotated[str, typer.Option("--host", help="The address to listen on; 0.0.0.0 is all of this machine's.")]
PORT = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")]
NAMES = Annotated[
    list[str] | None, typer.Option("--allow-host", help="A name under which people reach the page; may be repeated.")
]
HTTPS = Annotated[bool, typer.Option("--https", help="A proxy before the page speaks TLS: cookies travel by it alone.")]


def serve(
    home: HOME = FOLDER,
    host: LISTEN = "127.0.0.1",
    port: PORT = 8765,
    database: DATABASE = None,
    allow_host: NAMES = None,
    https: HTTPS = False,
) -> None:
    """Serve the labelling pages until Ctrl-C. Nobody gets in but by invitation. `heedful serve` has runs and chat as well.

    Example: `heedful label serve --home labels`
    """
    serve_pages(home, host, port, database=database, names=allow_host or [], https=https)


def serve_pages(
    home: Path,
    host: str,
    port: int,
    *,
    database: str | None,
    names: list[str],
    https: bool,
    runs: Sequence[Path] = (),
    answer: Callable[..., Any] | None = None,
) -> None:
    """runs: folders below which run directories are shown. answer: who answers in the chat."""
    from heedful.web import home as web_home
    from heedful.web import serve as web

    local = ["localhost", "127.0.0.1", "[::1]"]
    web_home.configure(home, database=database, hosts=[*local, host, *names], https=https, runs=runs)

    def ready(taken: int) -> None:
        base = web.address(host, taken, names=names, https=https)
        link = web.first_admin_link(base)
        if link is not None:
            print(f"there is no admin yet; whoever opens this link becomes one, once:\n{link}", file=sys.stderr)
        behind = f", this machine's port {taken}" if https else ""
        what = "labelling, runs and chat" if runs else "labelling pages"
        print(f"{what} on {base}{behind} (Ctrl-C ends)", file=sys.stderr, flush=True)

    web.serve(host, port, https=https, ready=ready, answer=answer)


def import_(
    project: PROJECT,
    prompts: Annotated[Path, typer.Option("--prompts", help="The prompts that were completed.")],
    completions: Annotated[Path, typer.Option("--completions", help="Two to nine completions of each.")],
    home: HOME = FOLDER,
    criterion: Annotated[str, typer.Option(help="What makes a completion better.")] = "helpfulness",
    mode: Annotated[str, typer.Option(help="rank, thumbs, or versus: A or B.")] = "rank",
    against: Annotated[Path | None, typer.Option(help="In A-or-B mode, the other model's completions.")] = None,
    overlap: Annotated[int, typer.Option(min=1, max=50, help="Labelers for each set; with --adaptive the most.")] = 3,
    adaptive: Annotated[bool, typer.Option("--adaptive", help="Begin with two labelers a set; more until clear.")] = False,
    gold: Annotated[Path | None, typer.Option(help="Judgements known to be right, to check labelers by.")] = None,
    database: DATABASE = None,
    as_json: JSON = False,
) -> None:
    """Make a project of prompts and their completions.

    Example: `heedful label import --project house --prompts prompts.jsonl --completions completions.jsonl`
    """
    from heedful.cli.terminal import emit
    from heedful.data.formats import read_completions, read_prompts
    from heedful.records import Judgement, read_jsonl
    from heedful.web import home as web_home

    read = read_prompts(prompts), read_completions(completions)
    other = read_completions(against) if against else None
    known = read_jsonl(gold, Judgement) if gold else []
    web_home.configure(home, database=database)
    from heedful.web.labelling.files import Task, create_project

    made = create_project(project, *read, Task(criterion, mode, overlap, adaptive), gold=known, against=other)
    counts = {"sets": made.sets.filter(gold__isnull=True).count(), "gold_sets": made.sets.filter(gold__isnull=False).count()}
    told = f"project {made.name!r}: {counts['sets']} sets, {'two to ' if adaptive else ''}{overlap} labelers each"
    if known:
        told += f"; {counts['gold_sets']} gold sets"
    if made.num_identical:
        told += f"; {made.num_identical} prompts left out, as all their completions say the same"
    emit({"project": made.name, **counts, "identical": made.num_identical}, as_json, told)


def export(
    project: PROJECT,
    output: Annotated[Path, typer.Option("--output", help="Where the judgements go.")],
    form: Annotated[str, typer.Option("--format", help="records, label-studio, argilla or csv.")] = "records",
    home: HOME = FOLDER,
    database: DATABASE = None,
    as_json: JSON = False,
) -> None:
    """Write a project's judgements as records, for `heedful consensus`, or with prompts and answers for another tool.

    Example: `heedful label export --project house --output judgements.jsonl`
    """
    from dataclasses import asdict

    from heedful.cli.terminal import emit
    from heedful.data import interchange
    from heedful.records import Judgement
    from heedful.store import write_jsonl
    from heedful.web import home as web_home

    if form not in ("records", *interchange.FORMATS):
        raise typer.BadParameter(f"there are records, {', '.join(interchange.FORMATS)}", param_hint="--format")
    web_home.configure(home, database=database)
    from heedful.web.labelling import files

    found = files.project_named(project)
    if form == "records":
        judgements = files.export(found, None)
        write_jsonl(output, judgements)
        what = "votes" if found.mode == "thumbs" else "judgements"
        emit({what: len(judgements), "output": str(output)}, as_json, f"{len(judgements)} {what} in {output}")
        return
    prompts, completions = files.sets_of(found)
    rankings = [record for record in files.export(found, None) if isinstance(record, Judgement)]
    report = interchange.write(form, output, interchange.Sets(prompts, completions, rankings))
    told = "\n".join((f"{len(rankings)} judgements for {output}", *report.lines()))
    emit({"judgements": len(rankings), "output": str(output)} | asdict(report), as_json, told)


def export_chat(
    output: Annotated[Path, typer.Option("--output", help="Folder for prompts, completions, votes and judgements.")],
    run: Annotated[str | None, typer.Option("--run", help="Of chats with this run alone, by its name on the page.")] = None,
    home: HOME = FOLDER,
    database: DATABASE = None,
    as_json: JSON = False,
) -> None:
    """Write the thumbs and corrections of chats, for `heedful align kto`, or for an update on another machine.

    Example: `heedful label export-chat --output chat`
    """
    from heedful.cli.terminal import emit
    from heedful.opinions import write_opinions
    from heedful.web.chats import read_chats

    found = read_chats(home, database=database, named=run)
    write_opinions(output, found)
    counts = {name: len(rows) for name, rows in found._asdict().items()}
    answered = counts["completions"] - counts["judgements"]
    told = f"{counts['votes']} votes on {answered} answers in {output}"
    told += f", and {counts['judgements']} corrections" if counts["judgements"] else ""
    emit(counts | {"output": str(output)}, as_json, told)


def quality(project: PROJECT, home: HOME = FOLDER, database: DATABASE = None, as_json: JSON = False) -> None:
    """Who agrees with whom so far, and in A-or-B mode which model is preferred.

    Example: `heedful label quality --project house`
    """
    from dataclasses import asdict

    from heedful.cli.terminal import emit, table
    from heedful.errors import DataError
    from heedful.web import home as web_home

    web_home.configure(home, database=database)
    from heedful.web.labelling import files
    from heedful.web.labelling import quality as computed
    from heedful.web.labelling.models import Judgement

    labelled = files.project_named(project)
    found = computed.compute(labelled) if Judgement.objects.filter(set__project=labelled).exists() else None
    if found is None or not found.agreement["num_judgements"]:
        raise DataError(f"project {project!r} has no judgements yet; labelers come by 'heedful label users invite'")
    if as_json:
        labelers = [row.model_dump(mode="json") for row in found.labelers]
        emit(asdict(found) | {"labelers": labelers}, True)
        return
    rows = [
        (
            row.labeler,
            str(row.num_judgements),
            "-" if row.agreement is None else f"{row.agreement:.2f}",
            "/".join(map(str, found.gold[row.labeler])) if row.labeler in found.gold else "-",
            row.verdict,
        )
        for row in found.labelers
    ]
    judged = "thumbs" if labelled.mode == "thumbs" else "judgements"
    table("Labelers", ("", judged, "agreement", "gold", "verdict"), rows)
    alpha = found.agreement["krippendorff_alpha"]
    print(f"\nKrippendorff's alpha {'-' if alpha is None else f'{alpha:.2f}'}")
    if found.versus:
        v = found.versus
        bounds = "" if v.low is None else f" (95% {v.low} to {v.high})"
        print(f"{v.second} against {v.first}: preferred in {v.percent}% of prompts{bounds}")


def backup(
    output: Annotated[Path, typer.Option("--output", help="A new folder for the copy.")],
    home: HOME = FOLDER,
    as_json: JSON = False,
) -> None:
    """Copy the server's folder, also while it runs; the copy can be served as it is.

    Example: `heedful label backup --output labels-monday`
    """
    from heedful.cli.terminal import emit
    from heedful.web.backup import back_up

    copied = back_up(home, output)
    emit({"output": str(copied)}, as_json, f"copied to {copied}; restore it with 'heedful label serve --home {copied}'")


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
