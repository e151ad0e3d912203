"""heedful label simulate, and heedful consensus; the labelling server's commands are in labelling.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli import labelling
from heedful.cli.flow import JSON

app = typer.Typer(help="Judgements: who ranks the completions.", no_args_is_help=True)
labelling.register(app)

PROMPTS = Annotated[Path, typer.Option("--prompts", help="The prompts that were completed.")]
COMPLETIONS = Annotated[Path, typer.Option("--completions", help="Their completions.")]


def register(root: typer.Typer) -> None:
    root.command()(consensus)


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


def consensus(
    judgements: Annotated[Path, typer.Option("--judgements", help="A file of judgements.")],
    prompts: PROMPTS,
    completions: COMPLETIONS,
    output: Annotated[Path, typer.Option("--output", help="Folder for preferences, labelers and agreement.")],
    criterion: Annotated[str | None, typer.Option(help="Use only the judgements by this criterion.")] = None,
    keep_ties: Annotated[
        bool, typer.Option("--keep-ties", help="Level completions make pairs too, with probability 0.5; see reward.ties.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Settle several labelers' rankings: preferences.jsonl, labelers.json, agreement.json.

    Example: `heedful consensus --judgements judgements.jsonl --prompts prompts.jsonl --completions completions.jsonl
    --output consensus`
    """
    from heedful.cli.terminal import emit, table
    from heedful.data.formats import read_completions, read_prompts
    from heedful.feedback.settlement import settle_into
    from heedful.records import Judgement, read_jsonl
    from heedful.store import read_json

    numbers = settle_into(
        output,
        read_prompts(prompts),
        read_completions(completions),
        [
            judgement
            for judgement in read_jsonl(judgements, Judgement, unique="id")
            if criterion is None or judgement.criterion == criterion
        ],
        include_ties=keep_ties,
    )
    labelers = read_json(output / "labelers.json")
    if as_json:
        emit({"agreement": numbers, "labelers": labelers, "output": str(output)}, True)
        return
    rows = [
        (row["labeler"], str(row["num_judgements"]), _number(row["agreement"]), _number(row["q"]), row["verdict"])
        for row in labelers
    ]
    table("Labelers", ("", "judgements", "agreement", "q", "verdict"), rows)
    alpha = _number(numbers["krippendorff_alpha"])
    print(f"\n{numbers['num_pairs']} pairs in {output / 'preferences.jsonl'}; Krippendorff's alpha {alpha}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
