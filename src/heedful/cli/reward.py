"""heedful reward train, score, evaluate, serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from heedful.cli.flow import JSON, OVERRIDES

app = typer.Typer()

PAIRS = Annotated[
    list[Path] | None, typer.Option("--preferences", help="Pairs: own records, TRL columns or HH transcripts. Repeatable.")
]
_KINDS = (
    "A folder that 'heedful reward train' wrote, a sequence classifier in Hugging Face's layout (folder or hub id), "
    "FOLDER#PERSON,PERSON of 'heedful persons fit', ensemble:FOLDER,FOLDER, python:module:function, file.py:function, or http(s)://..."
)
SOURCE = Annotated[str, typer.Argument(help=_KINDS, metavar="SOURCE")]
REWARD_SOURCE = Annotated[
    str | None, typer.Option("--reward-model", help=_KINDS + " Left out: [[reward.terms]] of the configuration.")
]
LABEL = Annotated[str, typer.Option("--label", help="Of a classifier: name or number of the label whose logit is the reward.")]
READS = Annotated[str, typer.Option("--reads", help="Of a classifier: prompt+answer or answer; auto as it was trained.")]


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", help="Folder for the reward model.")],
    preferences: PAIRS = None,
    labelled: Annotated[
        list[str] | None, typer.Option("--labelled", help="In place of pairs: texts with labels, JSONL or CSV. Repeatable.")
    ] = None,
    wanted: Annotated[str, typer.Option("--wanted", help="With --labelled: the label whose logit is the reward.")] = "",
    ensemble: Annotated[int | None, typer.Option("--ensemble", help="Train this many, each from a seed of its own.")] = None,
    model: Annotated[str, typer.Option("--model", help="The base that gets an adapter, or an encoder such as minilm-22m.")] = (
        "smollm2-135m"
    ),
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Train a reward model on pairs or on labelled texts; an interrupted training goes on from its last checkpoint.

    Example: `heedful reward train --model smollm2-135m --preferences consensus/preferences.jsonl --output reward`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.config import for_reward_training
    from heedful.scale.launch import share_work

    config = for_reward_training(
        tuple(overrides or ()), pairs=bool(preferences), labelled=labelled, wanted=wanted, ensemble=ensemble, seed=seed
    )

    def work(place: Path) -> dict[str, Any]:
        from heedful.stages.reward import train_reward_model_alone

        with Bars() as bars:
            return train_reward_model_alone(model, preferences or [], place, config, bars.for_stage("reward"))

    result = share_work(config.scale, output, work)
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
    preferences: PAIRS = None,
    labelled: Annotated[
        list[Path] | None, typer.Option("--labelled", help="In place of pairs: texts with labels, JSONL or CSV. Repeatable.")
    ] = None,
    wanted: Annotated[str, typer.Option("--wanted", help="With --labelled: the label that rewards above 0 stand for.")] = "",
    label: LABEL = "",
    reads: READS = "auto",
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Accuracy with its interval: on pairs beside the longest-answer baseline, on labelled texts beside the larger class.

    Example: `heedful reward evaluate reward/model --preferences held-out.jsonl --json`
    """
    from heedful.cli.terminal import emit
    from heedful.config import parse, with_reward
    from heedful.errors import ConfigError
    from heedful.rewards.asking import evaluate_on_labelled, evaluate_on_pairs

    given = (*(overrides or ()), *([f"reward.labelled.wanted={json.dumps(wanted)}"] if wanted else ()))
    config = with_reward(parse({}, "--set", given), source, label, reads)
    if bool(preferences) == bool(labelled):
        raise ConfigError("name files of one kind to measure on: --preferences or --labelled")
    result = evaluate_on_labelled(config, labelled) if labelled else evaluate_on_pairs(config, preferences or [])
    emit(result, as_json, _sentence(result))


@app.command()
def serve(
    source: SOURCE,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; another than this machine's needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8700,
    token_env: Annotated[str, typer.Option("--token-env", help="Environment variable with the token that clients send.")] = "",
    deadline_s: Annotated[float, typer.Option("--deadline", min=0.1, help="Seconds that a request waits at most.")] = 60.0,
    label: LABEL = "",
    reads: READS = "auto",
    overrides: OVERRIDES = None,
) -> None:
    """Answer requests for rewards until Ctrl-C, in the protocol of a reward at an address; requests are scored in batches.

    Example: `heedful reward serve reward/model --port 8700`
    """
    import sys

    from heedful.config import parse, with_reward
    from heedful.endpoint import token_in
    from heedful.rewards.service import serve as serve_reward

    def ready(address: str) -> None:
        print(f"rewards of {source} at {address} until Ctrl-C", file=sys.stderr, flush=True)

    config = with_reward(parse({}, "--set", tuple(overrides or ())), source, label, reads)
    token = token_in(token_env, "--token-env")
    serve_reward(config, host=host, port=port, token=token, deadline_s=deadline_s, ready=ready)


def _sentence(result: dict[str, object]) -> str:
    from typing import Any, cast

    from heedful.report.numbers import percent

    found = cast(dict[str, Any], result)
    if "num_texts" in found:
        label = f"; the reward is the logit of {found['reward_label']!r}" if "reward_label" in found else ""
        return (
            f"{percent(found['accuracy'])} of {found['num_texts']} texts right, the larger class is "
            f"{100 * found['majority_class']:.1f}%; F1 {percent(found['f1'])}, AUC {percent(found['auc'])}{label}"
        )
    return (
        f"{percent(found['accuracy'])} of {found['num_pairs']} pairs of {found['num_prompts']} prompts right; "
        f"the longer answer is right in {100 * found['longest_answer']:.1f}%"
    )
