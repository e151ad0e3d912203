"""heedful constitution revise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON, OVERRIDES
from heedful.cli.reward import LABEL, READS


def register(app: typer.Typer) -> None:
    app.command()(revise)


def revise(
    config: Annotated[Path, typer.Option("--config", help="A heedful.toml; model, prompts, revise and sft are read.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the chains, what is learned, and the policy.")],
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompts", help="Red-team prompts: a file, or bundled:NAME. Repeatable. Left out: prompts.files."),
    ] = None,
    completions: Annotated[
        list[Path] | None, typer.Option("--completions", help="Answers to them that need not be written again. Repeatable.")
    ] = None,
    reward_model: Annotated[
        str | None, typer.Option("--reward-model", help="A reward of any kind that must call a revision better.")
    ] = None,
    label: LABEL = "",
    reads: READS = "auto",
    tune: Annotated[bool, typer.Option("--tune/--no-tune", help="Fine-tune on what was kept, or stop before that.")] = True,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Stage 1: answer, critique, revision by a constitution, and fine-tuning on what was kept; goes on where it stopped.

    Example: `heedful constitution revise --config heedful.toml --prompts red-team.jsonl --output stage1`
    """
    from heedful.cli.terminal import Bars, emit, table
    from heedful.config import for_revising, load
    from heedful.stages.revise import revise as work
    from heedful.stages.revise import told

    loaded = for_revising(load(config, tuple(overrides or ())), reward_model, label, reads)
    with Bars() as bars:
        found = work(loaded, output, bars, prompts=prompts or (), completions=completions or (), tune=tune)
    if as_json:
        emit(found, True)
        return
    rows = [(reason, str(found["chains"].get(reason, 0)), str(found["revisions"].get(reason, 0))) for reason in told(found)]
    table("What became of it", ("", "chains", "revisions"), rows)
    print(f"{found['num_kept']} revisions and {found['num_helpful']} helpful answers are in {output / 'revise'}")
    if tune:
        said = f"held-out loss {found['sft']['loss_before']:.3f} -> {found['sft']['loss']:.3f} nats a token"
        print(f"{found['sft']['steps']} steps, {said}; the policy is in {output / 'sft' / 'policy'}")
