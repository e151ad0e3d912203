"""heedful align ppo, sft, dpo, kto."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON, OVERRIDES

CONFIG = Annotated[Path, typer.Option("--config", help="A heedful.toml; its model section and the method's own are read.")]
OUTPUT = Annotated[Path, typer.Option("--output", help="Folder for checkpoints, metrics and the policy.")]
PAIRS = Annotated[
    list[Path] | None, typer.Option("--preferences", help="Pairs: own records, TRL columns or HH transcripts. Repeatable.")
]
COMPLETIONS = Annotated[
    list[Path] | None,
    typer.Option("--completions", help="Completions; beside pairs they tell which answers the limit cut off. Repeatable."),
]
PROMPTS = Annotated[list[Path] | None, typer.Option("--prompts", help="The prompts that were completed. Repeatable.")]

app = typer.Typer(help="Optimise the policy.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Optimise the policy."""


@app.command()
def ppo(
    config: Annotated[Path, typer.Option("--config", help="A heedful.toml; its model, prompts and ppo sections are read.")],
    reward_model: Annotated[Path, typer.Option("--reward-model", help="A folder that 'heedful reward train' wrote.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for checkpoints, metrics and the policy.")],
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Proximal policy optimisation against a reward model; goes on from its last checkpoint.

    Example: `heedful align ppo --config heedful.toml --reward-model reward/model --output aligned`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load
    from heedful.pipeline import Pipeline
    from heedful.store import Run

    loaded = load(config, tuple(overrides or ()))
    with Run(output) as run, Bars() as bars:
        pipeline = Pipeline(loaded, run, bars, reward_folder=reward_model)
        result = pipeline.align()
    emit(result, as_json, f"{result['steps']} steps ({result['stopped']}); the policy is in {pipeline.policy_folder}")


@app.command()
def sft(
    config: CONFIG,
    output: OUTPUT,
    completions: COMPLETIONS = None,
    prompts: PROMPTS = None,
    preferences: PAIRS = None,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Supervised fine-tuning on completions, or on the chosen side of pairs; goes on from its last checkpoint.

    Example: `heedful align sft --config heedful.toml --completions good.jsonl --prompts prompts.jsonl --output tuned`
    """
    from heedful.align_stage import align_sft
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load

    files = {"completions": completions or (), "prompts": prompts or (), "preferences": preferences or ()}
    with Bars() as bars:
        found = align_sft(load(config, tuple(overrides or ())), output, bars, **files)
    said = f"held-out loss {found['loss_before']:.3f} -> {found['loss']:.3f} nats a token"
    emit(found, as_json, f"{found['steps']} steps, {said}; the policy is in {output / 'sft' / 'policy'}")


@app.command()
def dpo(
    config: CONFIG,
    preferences: Annotated[
        list[Path], typer.Option("--preferences", help="Pairs: own records, TRL columns or HH transcripts. Repeatable.")
    ],
    output: OUTPUT,
    completions: COMPLETIONS = None,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Direct preference optimisation, IPO, SimPO, ORPO and kin on pairs; goes on from its last checkpoint.

    Example: `heedful align dpo --config heedful.toml --preferences preferences.jsonl --output aligned --set dpo.loss=ipo`
    """
    from heedful.align_stage import align_dpo
    from heedful.cli.terminal import Bars, emit, percent
    from heedful.config import load

    with Bars() as bars:
        loaded = load(config, tuple(overrides or ()))
        found = align_dpo(loaded, output, bars, preferences=preferences, completions=completions or ())
    said = f"{percent(found['accuracy'])} of {found['num_pairs']} held-out pairs right, " if "accuracy" in found else ""
    said += f"margin {found['margin']:+.3f}"
    emit(found, as_json, f"{found['steps']} steps, {said}; the policy is in {output / 'dpo' / 'policy'}")


@app.command()
def kto(
    config: CONFIG,
    output: OUTPUT,
    votes: Annotated[list[Path] | None, typer.Option("--votes", help="Thumbs up and down. Repeatable.")] = None,
    prompts: PROMPTS = None,
    completions: COMPLETIONS = None,
    preferences: PAIRS = None,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Kahneman-Tversky optimisation on votes, or on pairs as good and bad; goes on from its last checkpoint.

    Example: `heedful align kto --config heedful.toml --votes v.jsonl --prompts p.jsonl --completions c.jsonl --output aligned`
    """
    from heedful.align_stage import align_kto
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load

    files = {"completions": completions or (), "prompts": prompts or (), "preferences": preferences or ()}
    with Bars() as bars:
        found = align_kto(load(config, tuple(overrides or ())), output, bars, votes=votes or (), **files)
    said = f"{100 * found['accuracy']:.1f}% of good-bad pairings in order, " if "accuracy" in found else ""
    said += f"held-out loss {found['loss']:.3f}"
    emit(found, as_json, f"{found['steps']} steps, {said}; the policy is in {output / 'kto' / 'policy'}")
