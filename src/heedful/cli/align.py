"""heedful align: ppo, rloo, grpo, ilql."""

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


CONFIG = Annotated[Path, typer.Option("--config", help="A heedful.toml; its model, prompts and method's sections are read.")]
OUTPUT = Annotated[Path, typer.Option("--output", help="Folder for checkpoints, metrics and the policy.")]


@app.command()
def ppo(
    config: CONFIG,
    output: OUTPUT,
    reward_model: REWARD_SOURCE = None,
    label: LABEL = "",
    reads: READS = "auto",
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Proximal policy optimisation against a reward of any kind; goes on from its last checkpoint.

    Example: `heedful align ppo --config heedful.toml --reward-model reward/model --output aligned`
    """
    _online("ppo", config, (reward_model, label, reads), output, overrides, as_json)


@app.command()
def rloo(
    config: CONFIG,
    output: OUTPUT,
    reward_model: REWARD_SOURCE = None,
    label: LABEL = "",
    reads: READS = "auto",
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """REINFORCE against a reward of any kind, each answer held against the others; goes on from its last checkpoint.

    Example: `heedful align rloo --config heedful.toml --reward-model reward/model --output aligned`
    """
    _online("rloo", config, (reward_model, label, reads), output, overrides, as_json)


@app.command()
def grpo(
    config: CONFIG,
    output: OUTPUT,
    reward_model: REWARD_SOURCE = None,
    label: LABEL = "",
    reads: READS = "auto",
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Group-relative policy optimisation against a reward of any kind; goes on from its last checkpoint.

    Example: `heedful align grpo --config heedful.toml --reward-model reward/model --output aligned --set grpo.variant=dapo`
    """
    _online("grpo", config, (reward_model, label, reads), output, overrides, as_json)


def _online(
    method: str, config: Path, reward: tuple[str | None, str, str], output: Path, overrides: list[str] | None, as_json: bool
) -> None:
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load, with_reward
    from heedful.pipeline import Pipeline
    from heedful.store import Run

    loaded = with_reward(load(config, (*(overrides or ()), f"method={method}")), *reward)
    with Run(output) as run, Bars() as bars:
        pipeline = Pipeline(loaded, run, bars)
        result = pipeline.align_alone()
    emit(result, as_json, f"{result['steps']} steps ({result['stopped']}); the policy is in {pipeline.policy_folder}")


@app.command()
def ilql(
    config: Annotated[Path, typer.Option("--config", help="A heedful.toml; its model and ilql sections are read.")],
    preferences: Annotated[
        list[Path], typer.Option("--preferences", help="Pairs: own records, TRL columns or HH transcripts. Repeatable.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder for checkpoints, metrics and the heads.")],
    votes: Annotated[list[Path] | None, typer.Option("--votes", help="Vote records to learn from as well. Repeatable.")] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="The prompts of the votes.")] = None,
    completions: Annotated[Path | None, typer.Option("--completions", help="The completions that were voted on.")] = None,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Implicit Q-learning from judged completions, offline; goes on from its last checkpoint.

    Example: `heedful align ilql --config heedful.toml --preferences consensus/preferences.jsonl --output steered`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load
    from heedful.ilql_stage import align_ilql
    from heedful.report.numbers import percent

    loaded = load(config, tuple(overrides or ()))
    with Bars() as bars:
        result = align_ilql(
            loaded,
            output,
            preferences=preferences,
            votes=votes or (),
            prompts=prompts,
            completions=completions,
            progress=bars.for_stage("ilql"),
        )
    emit(
        result,
        as_json,
        f"{result['steps']} steps; the chosen completion has the higher mean Q in {percent(result['accuracy'])} of "
        f"{result['num_pairs']} held-out pairs (the longer one is better in {100 * result['longest_answer']:.1f}%)\n"
        f"the heads are in {output / 'ilql' / 'policy'}; heedful chat {output}",
    )
