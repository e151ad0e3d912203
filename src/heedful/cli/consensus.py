"""heedful consensus."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from heedful.cli.flow import JSON

PROMPTS = Annotated[Path, typer.Option("--prompts", help="The prompts that were completed.")]
COMPLETIONS = Annotated[Path, typer.Option("--completions", help="Their completions.")]


def register(app: typer.Typer) -> None:
    app.command()(consensus)


def consensus(
    judgements: Annotated[Path, typer.Option("--judgements", help="A file of judgements.")],
    prompts: PROMPTS,
    completions: COMPLETIONS,
    output: Annotated[Path, typer.Option("--output", help="Folder for preferences, labelers and agreement.")],
    criterion: Annotated[str | None, typer.Option(help="Use only the judgements by this criterion.")] = None,
    keep_ties: Annotated[
        bool, typer.Option("--keep-ties", help="Level completions make pairs too, with probability 0.5; see reward.ties.")
    ] = False,
    by: Annotated[
        Literal["votes", "reliability", "scores"],
        typer.Option("--by", help="Labelers count alike, or by how reliable they are over all prompts, or scores decide."),
    ] = "votes",
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="NAME", help="Drop this labeler's judgements here. May be given several times."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Settle several labelers' rankings: preferences.jsonl, labelers.json, scores.json, agreement.json.

    Example: `heedful consensus --judgements judgements.jsonl --prompts prompts.jsonl --completions completions.jsonl
    --output consensus`
    """
    from heedful.cli.terminal import emit
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
        by=by,
        leave_out=leave_out or (),
    )
    labelers = read_json(output / "labelers.json")
    if as_json:
        emit({"agreement": numbers, "labelers": labelers, "output": str(output)}, True)
        return
    _show(labelers, numbers)
    alpha = _number(numbers["krippendorff_alpha"])
    print(f"\n{numbers['num_pairs']} pairs in {output / 'preferences.jsonl'}; Krippendorff's alpha {alpha}")


def _show(labelers: list[dict[str, Any]], numbers: dict[str, Any]) -> None:
    """The labelers, and the reasons for each verdict; the judgements of those left out are in none of it."""
    from heedful.cli.terminal import table

    weights = numbers["weights"]
    rows = []
    for row in labelers:
        weight = [] if weights is None else [f"{weights[row['labeler']]:.2f}"]
        rows.append(
            (row["labeler"], str(row["num_judgements"]), _number(row["agreement"]), _number(row["q"]), *weight, row["verdict"])
        )
    table("Labelers", ("", "judgements", "agreement", "q", *([] if weights is None else ["weight"]), "verdict"), rows)
    print()
    for row in labelers:
        said = f"{row['labeler']}: {'; '.join(row['reasons'])}."
        print(textwrap.fill(said, 80, subsequent_indent="  "))
    if numbers["left_out"]:
        print(textwrap.fill(f"Left out: {', '.join(numbers['left_out'])}.", 80, subsequent_indent="  "))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
