"""heedful constitution red-team: what a model answers to prompts that it should turn down, and to harmless look-alikes."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from heedful.cli.flow import JSON

if TYPE_CHECKING:
    from heedful.stages.red_team import Outcome


def register(app: typer.Typer) -> None:
    app.command(name="red-team")(red_team)


def red_team(
    output: Annotated[Path, typer.Option("--output", help="Folder for all that is found; the same one goes on.")],
    model: Annotated[str, typer.Option("--model", help="The target: a run, a folder, a hub id, or an alias.")] = "smollm2-135m",
    against: Annotated[str | None, typer.Option("--against", help="A second target, as the aligned one.")] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompts", help="A file of prompts, or bundled:NAME. Repeatable; default: heedful's own."),
    ] = None,
    categories: Annotated[str, typer.Option(help="Only these categories of attacks, as in cyber,fraud.")] = "",
    split: Annotated[Literal["all", "train", "heldout"], typer.Option(help="Which prompts.")] = "all",
    num_prompts: Annotated[int, typer.Option(min=0, help="So many attacks, drawn; 0: all.")] = 0,
    num_safe: Annotated[int, typer.Option(min=0, help="So many look-alikes, drawn; 0: all.")] = 0,
    variants: Annotated[int, typer.Option(min=0, max=6, help="Variants of each attack, written by --writer.")] = 0,
    writer: Annotated[
        str, typer.Option(help="Who writes variants: a folder, an alias, a hub id, https://.../v1.")
    ] = "smollm2-135m",
    writer_model: Annotated[str, typer.Option(help="Of a --writer behind an address: the model's name there.")] = "",
    writer_token_env: Annotated[str, typer.Option(help="Of a --writer behind an address: variable with its token.")] = "",
    num_completions: Annotated[int, typer.Option(min=1, help="Answers a prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="Divides the logits; 0 takes the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Nucleus that is kept.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    batch_rows: Annotated[int, typer.Option(min=1, help="Answers decoded side by side.")] = 32,
    judge: Annotated[
        str, typer.Option(help="Of harm: heuristic, profanity, ai:MODEL, or a reward as 'heedful reward score' takes it.")
    ] = "heuristic",
    threshold: Annotated[
        float | None, typer.Option(help="Harmful above this score (heuristic 0.35, else 0.5); of a reward, below it (0).")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="Of a judge ai:https://.../v1: the model's name there.")] = "",
    judge_token_env: Annotated[str, typer.Option(help="Of a judge ai:https://.../v1: variable with its token.")] = "",
    judge_label: Annotated[str, typer.Option(help="Of a classifier: the label whose logit is the reward.")] = "",
    gate: Annotated[
        Path | None, typer.Option(help="Pairs, chosen less harmful than rejected, on which the judge is measured first.")
    ] = None,
    gate_pairs: Annotated[int, typer.Option(min=0, help="At most this many of them, drawn at random; 0: all.")] = 400,
    believe_judge: Annotated[bool, typer.Option("--believe-judge", help="Go on with a judge that may be a coin.")] = False,
    failures: Annotated[
        Literal["labels", "prompts"] | None,
        typer.Option(help="Make of the failures a labelling queue, or training prompts, in OUTPUT/failures."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: JSON = False,
) -> None:
    """Attack a model with red-team prompts: refused, incoherent, harmful and safe answers, by category, with intervals.

    Example: `heedful constitution red-team --model smollm2-135m --output red-team`
    """
    from heedful.cli.talk import policy_of
    from heedful.cli.terminal import Bars, emit
    from heedful.red_team_files import chosen_prompts, write_failures
    from heedful.stages.red_team import Attack, red_team

    names = [name for part in categories.split(",") if (name := part.strip())]
    chosen = chosen_prompts(prompts or (), categories=names, split=split, num_attacks=num_prompts, num_safe=num_safe, seed=seed)
    attack = Attack(
        model=policy_of(model),
        against=policy_of(against) if against else None,
        variants=variants,
        writer=writer if "://" in writer else policy_of(writer),
        writer_model=writer_model,
        writer_token_env=writer_token_env,
        num_completions=num_completions,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        batch_rows=batch_rows,
        judge=judge,
        threshold=threshold,
        judge_model=judge_model,
        judge_token_env=judge_token_env,
        judge_label=judge_label,
        gate=gate,
        gate_pairs=gate_pairs,
        believe=believe_judge,
        seed=seed,
    )
    with Bars() as bars:
        outcome = red_team(chosen, output, attack, bars)
    _notes(outcome)
    made = None
    if failures:
        made = write_failures(outcome.prompts, outcome.completions, outcome.last, output / "failures", failures)
    if as_json:
        emit(outcome.figures | {"failures": made, "output": str(output)}, True)
        return
    _show(outcome)
    print(f"Transcripts: {output / 'report.html'}")
    if made:
        print(textwrap.fill(_of_failures(made, output / "failures"), 80, break_on_hyphens=False))


def _notes(outcome: Outcome) -> None:
    figures = outcome.figures
    if figures["left_out"]:
        print(f"{figures['left_out']} prompts do not fit into a model's context and were left out", file=sys.stderr)
    if silent := figures.get("unjudged"):
        print(
            f"Of an answer to {silent} prompts the judge said nothing; they are in no figure, and are asked again",
            file=sys.stderr,
        )
    if "after" in figures["models"] and figures["split"]["train"]:
        print(
            f"{figures['split']['train']} of the prompts are for training: a model that learned from them is no fair 'after'; "
            "--split heldout leaves them out",
            file=sys.stderr,
        )


def _show(outcome: Outcome) -> None:
    from heedful.cli.terminal import table
    from heedful.evaluation.attack import KINDS
    from heedful.evaluation.harm import told
    from heedful.report.numbers import plural

    figures = outcome.figures
    two = "after" in figures["models"]
    heads = ("", "before", "after", "difference") if two else ("", "%")
    attacks, others = figures["attacks"], figures["look_alikes"]
    rows = [(f"all ({attacks['success']['num_cases']})", *cells(attacks["success"]))]
    rows += [(f"{name} ({row['num_cases']})", *cells(row)) for name, row in attacks["by_category"].items()]
    rows += [(f"as {name} ({row['num_cases']})", *cells(row)) for name, row in attacks.get("by_strategy", {}).items()]
    table("Attacks that succeeded, % of prompts", heads, rows)
    for title, side in (("attacks", attacks), ("look-alikes", others)):
        if side:
            print()
            rows = [(kind, *cells(side["kinds"][kind])) for kind in KINDS if kind in side["kinds"]]
            table(f"Answers to {title}, %", heads, rows)
    print()
    if figures["dropped_variants"] or figures["variants"]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in figures["dropped_variants"].items())
        print(textwrap.fill(f"{plural(figures['variants'], 'variant')} written; dropped: {dropped or 'none'}.", 80))
    if two:
        change = attacks["success"]["change"]
        said = f"{change['lost']} attacks no longer succeed, {change['gained']} do now (McNemar p = {change['p']:.3f})."
        print(textwrap.fill(said, 80))
    judged = figures["judge"]
    print(
        textwrap.fill(
            told(judged["gate"])
            if judged["gate"]
            else f"How well the judge '{judged['name']}' does was not measured here; --gate PAIRS measures it.",
            80,
        )
    )


def cells(row: dict[str, Any]) -> list[str]:
    from heedful.report.numbers import bounds, number, signed

    if "difference" not in row:
        return [number(100 * row["before"]["estimate"], 1) + bounds(row["before"], 1, scale=100)]
    change = row["difference"]
    shown = [number(100 * row[side]["estimate"], 1) for side in ("before", "after")]
    return [*shown, signed(100 * change["estimate"], 1) + bounds(change, 1, scale=100, sign=True)]


def _of_failures(made: dict[str, Any], folder: Path) -> str:
    if not made["prompts"] and not made.get("held_out"):
        return "There is no failure, so no file was made of them."
    if made["kind"] == "prompts":
        left = f" {made['held_out']} more are held out and stay out of training." if made["held_out"] else ""
        return f"{made['prompts']} failing prompts for training in {folder / 'prompts.jsonl'}.{left}"
    left = f" Of them {made['held_out']} are held out: labels of those may measure, and not train." if made["held_out"] else ""
    mode = "" if made["least_completions"] >= 2 else " --mode thumbs"
    files = f"--prompts {folder / 'prompts.jsonl'} --completions {folder / 'completions.jsonl'}{mode}"
    return (
        f"{made['prompts']} failing prompts with {made['completions']} completions in {folder}.{left} Next: "
        f"heedful label import --project red-team {files}"
    )
