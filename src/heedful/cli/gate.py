"""heedful constitution gate: is a judge better than a coin, and which of several is the best."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from heedful.cli.flow import JSON

REFUSED = 1


def register(app: typer.Typer) -> None:
    app.command()(gate)


def gate(
    preferences: Annotated[
        list[Path], typer.Option("--preferences", help="Pairs that people have judged, of the kind to be judged. Repeatable.")
    ],
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", help="A model asked for A or B: folder, hub id, alias or https://.../v1. Repeatable."),
    ] = None,
    scorer: Annotated[
        list[str] | None, typer.Option("--scorer", help="'contrastive': a model's likelihoods under good and bad instructions.")
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option("--reward", help="A reward model, a classifier or another source of rewards. Repeatable."),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Whose likelihoods a --scorer takes.")] = "smollm2-135m",
    judge_model: Annotated[str, typer.Option("--judge-model", help="Of a --judge that is an address: the model there.")] = "",
    token_env: Annotated[str, typer.Option("--token-env", help="Of an address: environment variable with its token.")] = "",
    constitution: Annotated[
        str, typer.Option("--constitution", help="A constitution file; 'none': a --judge is asked one plain question.")
    ] = "bundled",
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Only principles with one of these tags. Repeatable.")] = None,
    principles: Annotated[
        int, typer.Option(min=0, help="Of a --judge or --scorer: principles a pair, drawn by weight; 0: all.")
    ] = 2,
    against: Annotated[
        str, typer.Option("--against", help="Of a --scorer: good instructions against 'plain' (none) or 'bad' ones.")
    ] = "plain",
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Of a --judge: reasons are written before the letter.")
    ] = False,
    hhh: Annotated[bool, typer.Option("--hhh", help="Measure on the bundled helpful, honest, harmless items, too.")] = False,
    pairs: Annotated[int, typer.Option("--gate-pairs", min=0, help="At most so many pairs, drawn at random; 0: all.")] = 400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Leave with 0 though all are refused; the output says so.")] = False,
    calls: Annotated[Path | None, typer.Option("--calls", help="A file of finished calls, to resume from.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write the figures into this JSON file as well.")] = None,
    as_json: JSON = False,
) -> None:
    """Accuracy and order-consistency of judges on pairs that people have judged; one that may be a coin is refused.

    Example: `heedful constitution gate --judge smollm2-135m --reward reward/model --preferences labelled.jsonl --hhh`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.judges import gated, named_judges
    from heedful.store import write_json

    given = named_judges(
        judges=judge or [],
        scorers=scorer or [],
        rewards=reward or [],
        model=model,
        judge_model=judge_model,
        token_env=token_env,
        constitution=constitution,
        tags=tags or [],
        principles=principles,
        against=against,
        reasoning=reasoning,
        seed=seed,
    )
    with Bars() as bars:
        found = gated(
            given,
            preferences,
            hhh=hhh,
            calls=calls,
            max_pairs=pairs,
            seed=seed,
            force=force,
            told=lambda name, done, total: bars("gate", done, total, name),
        )
    if output is not None:
        write_json(output, found)
    if as_json:
        emit(found, True)
    else:
        _show(found)
    if found["best"] is None and not force:
        raise typer.Exit(REFUSED)


def _show(found: dict[str, Any]) -> None:
    from heedful.cli.terminal import table
    from heedful.evaluation.gate import doubt

    rows = [_row(figures) for figures in found["judges"]]
    table(
        "Judges on pairs that people have judged", ("judge", "pairs", "right, %", "both orders, %", "ties, %", "invalid"), rows
    )
    for figures in found["judges"]:
        if "hhh" in figures:
            parts = [f"{name} {_cell(row['accuracy'])}" for name, row in figures["hhh"].items()]
            print(textwrap.fill(f"{figures['name']}, HHH items right, %: {', '.join(parts)}", 80))
    for figures in found["judges"]:
        if not figures["passed"]:
            print(textwrap.fill(f"refused: {figures['name']}. {figures.get('problem') or doubt(figures)}.", 80))
    if found["best"] is not None:
        print(textwrap.fill(f"The best is {found['best']}.", 80))
    elif found["forced"]:
        print("forced: none passes, and what is judged by them is judged by what may be a coin")


def _row(figures: dict[str, Any]) -> Sequence[str]:
    if "accuracy" not in figures:
        return figures["name"], "0", "", "", "", "all"
    ordered = figures["order_consistency"]
    return (
        figures["name"],
        f"{figures['num_pairs']:,}",
        _cell(figures["accuracy"]),
        _cell(ordered) if ordered else "",
        f"{100 * figures['ties']:.1f}",
        str(figures["invalid"]),
    )


def _cell(interval: dict[str, Any]) -> str:
    from heedful.cli.evaluate import cell

    return cell(interval, 1, 100)
