"""heedful environment: prompts, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from heedful.cli.flow import JSON, OVERRIDES

app = typer.Typer()


@app.command()
def prompts(
    kind: Annotated[Literal["arithmetic", "tictactoe"], typer.Argument(help="Products with answers, or games.")],
    output: Annotated[Path, typer.Option("--output", help="The file to write.")],
    count: Annotated[int, typer.Option(min=1, help="Prompts to train on.")] = 400,
    heldout: Annotated[int, typer.Option(min=1, help="Prompts that are held out.")] = 100,
    taught: Annotated[
        Path | None, typer.Option("--transcripts", help="Of arithmetic: also a teacher's transcripts, to fine-tune on.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which ones.")] = 0,
    as_json: JSON = False,
) -> None:
    """Write prompts that are tasks: for environment.kind = "tools" or "tictactoe".

    Example: `heedful environment prompts arithmetic --output products.jsonl --count 400`
    """
    from heedful.cli.terminal import emit
    from heedful.errors import ConfigError
    from heedful.flows.tool import TOOL_SHARE, tasks, transcripts
    from heedful.store import write_jsonl

    if taught and kind != "arithmetic":
        raise ConfigError("--transcripts: a teacher is there for arithmetic alone; leave the option out")
    found = tasks(kind, count, heldout, seed)
    write_jsonl(output, found)
    if taught:
        write_jsonl(taught, transcripts(found, tool_share=TOOL_SHARE, seed=seed))
    emit({"prompts": len(found), "output": str(output)}, as_json, f"{len(found)} prompts in {output}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", help="Folder for the model, the run and its figures.")] = Path("tools"),
    method: Annotated[Literal["ppo", "rloo", "grpo"], typer.Option(help="How it learns.")] = "rloo",
    seed: Annotated[int, typer.Option(min=0, help="Every random choice derives from it.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of reading transcripts, before anything is rewarded.")] = 500,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """A tiny model made here learns by trial to call a calculator; goes on where it stopped.

    Example: `heedful environment demo --output tools --method rloo`
    """
    from heedful.cli.terminal import Bars, emit, printable, table
    from heedful.flows.tool import demonstrate, examples

    with Bars() as bars:
        found = demonstrate(output, bars, method=method, overrides=tuple(overrides or ()), seed=seed, steps=steps)
    if as_json:
        emit(found, True)
        return
    names = {
        "right": "right answers",
        "right_with_tool": "right, with the calculator",
        "calls": "calls an episode",
        "failed_calls": "calls that failed",
    }
    rows = []
    for name, label in names.items():
        row = found["episodes"][name]
        difference = row["difference"]
        shown = f"{difference['estimate']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
        rows.append((label, f"{row['before']['estimate']:.3f}", f"{row['after']['estimate']:.3f}", shown))
    table("Held-out tasks", ("", "before", "after", "difference (95%)"), rows)
    for side, text in examples(output, 1):
        print(f"\n{side}:\n{printable(text)}")
    told = f"{found['align']['steps']} steps of {method}, {found['seconds']:.0f} s"
    print(f"\n{told}; the report is {output / 'run' / 'report.html'}")
