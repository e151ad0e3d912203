"""heedful align ppo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON, OVERRIDES

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
