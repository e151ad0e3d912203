"""heedful label simulate and convert; the labelling server's commands are in labelling.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli import labelling
from heedful.cli.consensus import COMPLETIONS, PROMPTS
from heedful.cli.flow import JSON

app = typer.Typer()
labelling.register(app)


@app.command()
def simulate(
    prompts: PROMPTS,
    completions: COMPLETIONS,
    output: Annotated[Path, typer.Option("--output", help="Where the judgements go.")],
    num_labelers: Annotated[int, typer.Option(min=1, help="Simulated labelers.")] = 4,
    num_careless: Annotated[int, typer.Option(min=0, help="How many of them rank without reading.")] = 1,
    noise: Annotated[float, typer.Option(min=0, help="Standard deviation of a careful one's score.")] = 0.04,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: JSON = False,
) -> None:
    """Let *simulated* labelers rank completions by a written rubric plus noise. They are no people.

    Example: `heedful label simulate --prompts prompts.jsonl --completions completions.jsonl --output judgements.jsonl`
    """
    from datetime import UTC, datetime

    from heedful.cli.terminal import emit
    from heedful.data.formats import read_completions, read_prompts
    from heedful.feedback import simulated
    from heedful.store import write_jsonl

    judgements = simulated.simulate(
        read_prompts(prompts),
        read_completions(completions),
        num_labelers=num_labelers,
        num_careless=num_careless,
        noise=noise,
        seed=seed,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_jsonl(output, judgements)
    emit({"judgements": len(judgements), "output": str(output)}, as_json, f"{len(judgements)} simulated judgements in {output}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="What another tool exported, or a table.")],
    form: Annotated[str, typer.Option("--from", help="label-studio, argilla or csv.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for prompts, completions and judgements.")],
    criterion: Annotated[str, typer.Option(help="What labelers judged by, where the file does not say.")] = "helpfulness",
    question: Annotated[
        str | None, typer.Option("--question", help="The ranking to read, where the labelers had several to give.")
    ] = None,
    buckets: Annotated[
        str | None, typer.Option("--buckets", help="Label Studio's buckets, best first, where no numbers: good,fair,bad.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Read judgements of another tool: prompts.jsonl, completions.jsonl and judgements.jsonl, and what was left out.

    Example: `heedful label convert --from label-studio export.json --output labelled`
    """
    from dataclasses import asdict

    from heedful.cli.terminal import emit
    from heedful.data import interchange

    names = tuple(name for part in (buckets or "").split(",") if (name := part.strip()))
    sets, report = interchange.convert(form, source, output, interchange.Asked(criterion, question, names))
    counts = {what: len(records) for what, records in sets._asdict().items()}
    told = ", ".join(f"{count} {what}" for what, count in counts.items()) + f" in {output}"
    emit(counts | asdict(report) | {"output": str(output)}, as_json, "\n".join((told, *report.lines())))
