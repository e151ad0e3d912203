"""heedful reward train, score, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON, OVERRIDES

app = typer.Typer(help="Reward models, trained on pairs.", no_args_is_help=True)

PAIRS = Annotated[
    list[Path], typer.Option("--preferences", help="Pairs: own records, TRL columns or HH transcripts. Repeatable.")
]
_KINDS = (
    "A folder that 'heedful reward train' wrote, a sequence classifier in Hugging Face's layout (folder or hub id), "
    "ensemble:FOLDER,FOLDER, python:module:function, file.py:function, or http(s)://..."
)
SOURCE = Annotated[str, typer.Argument(help=_KINDS, metavar="SOURCE")]
REWARD_SOURCE = Annotated[
    str | None, typer.Option("--reward-model", help=_KINDS + " Left out: [[reward.terms]] of the configuration.")
]
LABEL = Annotated[str, typer.Option("--label", help="Of a classifier: name or number of the label whose logit is the reward.")]
READS = Annotated[str, typer.Option("--reads", help="Of a classifier: prompt+answer or answer; auto as it was trained.")]


@app.command()
def train(
    preferences: PAIRS,
    output: Annotated[Path, typer.Option("--output", help="Folder for the reward model.")],
    model: Annotated[str, typer.Option("--model", help="The base that gets an adapter, or an encoder such as minilm-22m.")] = (
        "smollm2-135m"
    ),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Train a reward model on pairs; an interrupted training goes on from its last checkpoint.

    Example: `heedful reward train --model smollm2-135m --preferences consensus/preferences.jsonl --output reward`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.config import parse
    from heedful.reward_stage import train_reward_model_alone

    config = parse({}, "--set", tuple(overrides or ()))
    with Bars() as bars:
        result = train_reward_model_alone(model, preferences, output, config, seed, bars.for_stage("reward"))
    emit(result, as_json, _sentence(result) + f"\nsaved in {output / 'reward' / 'model'}")


@app.command()
def score(
    source: SOURCE,
    prompts: Annotated[Path, typer.Option("--prompts", help="The prompts that were completed.")],
    completions: Annotated[Path, typer.Option("--completions", help="Their completions.")],
    label: LABEL = "",
    reads: READS = "auto",
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Reward of each completion, one line each: reward, id.

    Example: `heedful reward score reward/model --prompts prompts.jsonl --completions completions.jsonl`
    """
    from heedful.cli.terminal import emit
    from heedful.config import parse, with_reward
    from heedful.rewards.asking import score_completions

    config = with_reward(parse({}, "--set", tuple(overrides or ())), source, label, reads)
    rewards = score_completions(config, prompts, completions)
    emit(rewards, as_json, "\n".join(f"{reward:+.4f}  {id_}" for id_, reward in rewards.items()))


@app.command()
def evaluate(
    source: SOURCE,
    preferences: PAIRS,
    label: LABEL = "",
    reads: READS = "auto",
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Accuracy on pairs with its interval, beside the longest-answer baseline.

    Example: `heedful reward evaluate reward/model --preferences held-out.jsonl --json`
    """
    from heedful.cli.terminal import emit
    from heedful.config import parse, with_reward
    from heedful.rewards.asking import evaluate_on_pairs

    config = with_reward(parse({}, "--set", tuple(overrides or ())), source, label, reads)
    result = evaluate_on_pairs(config, preferences)
    emit(result, as_json, _sentence(result))


def _sentence(result: dict[str, object]) -> str:
    from typing import Any, cast

    from heedful.cli.terminal import percent

    found = cast(dict[str, Any], result)
    return (
        f"{percent(found['accuracy'])} of {found['num_pairs']} pairs of {found['num_prompts']} prompts right; "
        f"the longer answer is right in {100 * found['longest_answer']:.1f}%"
    )
