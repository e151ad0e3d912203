"""heedful align ppo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON, OVERRIDES
from heedful.cli.reward import LABEL, READS, REWARD_SOURCE

app = typer.Typer(help="Optimise the policy.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Optimise the policy."""


@app.command()
def ppo(
    config: Annotated[Path, typer.Option("--config", help="A heedful.toml; its model, prompts and ppo sections are read.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for checkpoints, metrics and the policy.")],
    reward_model: REWARD_SOURCE = None,
    label: LABEL = "",
    reads: READS = "auto",
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Proximal policy optimisation against a reward of any kind; goes on from its last checkpoint.

    Example: `heedful align ppo --config heedful.toml --reward-model reward/model --output aligned`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load, with_reward
    from heedful.pipeline import Pipeline
    from heedful.store import Run

    loaded = with_reward(load(config, tuple(overrides or ())), reward_model, label, reads)
    with Run(output) as run, Bars() as bars:
        pipeline = Pipeline(loaded, run, bars)
        result = pipeline.align()
    emit(result, as_json, f"{result['steps']} steps ({result['stopped']}); the policy is in {pipeline.policy_folder}")
