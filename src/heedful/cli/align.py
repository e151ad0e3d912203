"""heedful align: ppo, rloo, grpo, sft, dpo, kto, ilql."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from heedful.cli.flow import JSON, OVERRIDES
from heedful.cli.reward import LABEL, READS, REWARD_SOURCE

CONFIG = Annotated[Path, typer.Option("--config", help="A heedful.toml; model, prompts and the method's section are read.")]
OUTPUT = Annotated[Path, typer.Option("--output", help="Folder for checkpoints, metrics and the policy.")]
PAIRS = Annotated[
    list[Path] | None, typer.Option("--preferences", help="Pairs: own records, TRL columns or HH transcripts. Repeatable.")
]
COMPLETIONS = Annotated[
    list[Path] | None,
    typer.Option("--completions", help="Completions; beside pairs they tell which answers the limit cut off. Repeatable."),
]
PROMPTS = Annotated[list[Path] | None, typer.Option("--prompts", help="The prompts that were completed. Repeatable.")]

app = typer.Typer()


@app.callback()
def group() -> None:
    """Optimise the policy."""


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
    from heedful.scale.launch import share_work
    from heedful.store import Run

    loaded = with_reward(load(config, (*(overrides or ()), f"method={method}")), *reward)

    def work(place: Path) -> dict[str, Any]:
        from heedful.pipeline import Pipeline

        with Run(place) as run, Bars() as bars:
            return Pipeline(loaded, run, bars).align_alone()

    result = share_work(loaded.scale, output, work)
    emit(result, as_json, f"{result['steps']} steps ({result['stopped']}); the policy is in {output / method / 'policy'}")


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
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load
    from heedful.scale.launch import share_work

    loaded = load(config, tuple(overrides or ()))
    files = {"completions": completions or (), "prompts": prompts or (), "preferences": preferences or ()}

    def work(place: Path) -> dict[str, Any]:
        from heedful.stages.offline import align_sft

        with Bars() as bars:
            return align_sft(loaded, place, bars, **files)

    found = share_work(loaded.scale, output, work)
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
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load
    from heedful.report.numbers import percent
    from heedful.scale.launch import share_work

    loaded = load(config, tuple(overrides or ()))

    def work(place: Path) -> dict[str, Any]:
        from heedful.stages.offline import align_dpo

        with Bars() as bars:
            return align_dpo(loaded, place, bars, preferences=preferences, completions=completions or ())

    found = share_work(loaded.scale, output, work)
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
    from heedful.cli.terminal import Bars, emit
    from heedful.config import load
    from heedful.scale.launch import share_work

    loaded = load(config, tuple(overrides or ()))
    files = {"completions": completions or (), "prompts": prompts or (), "preferences": preferences or ()}

    def work(place: Path) -> dict[str, Any]:
        from heedful.stages.offline import align_kto

        with Bars() as bars:
            return align_kto(loaded, place, bars, votes=votes or (), **files)

    found = share_work(loaded.scale, output, work)
    said = f"{100 * found['accuracy']:.1f}% of good-bad pairings in order, " if "accuracy" in found else ""
    said += f"held-out loss {found['loss']:.3f}"
    emit(found, as_json, f"{found['steps']} steps, {said}; the policy is in {output / 'kto' / 'policy'}")


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
    from heedful.report.numbers import percent
    from heedful.stages.ilql import align_ilql

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
