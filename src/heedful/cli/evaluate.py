"""heedful evaluate toxicity, refusal, hhh, all; winrate and summaries are in contests.py."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from heedful.cli.flow import JSON, run_directory

app = typer.Typer()

COMPLETIONS = Annotated[Path, typer.Option("--completions", help="A file of completions.")]
AGAINST = Annotated[Path | None, typer.Option("--against", help="Another model's completions of the same prompts.")]
PROMPTS = Annotated[Path, typer.Option("--prompts", help="The prompts that were completed.")]
CLASSIFIER = Annotated[
    str,
    typer.Option(help="'profanity', a folder of 'heedful reward train' on labelled texts, or a Hugging Face classifier."),
]
NEGATIVE = Annotated[str, typer.Option("--negative-label", help="The classifier's label that means toxic.")]


@app.command()
def toxicity(
    completions: COMPLETIONS,
    against: AGAINST = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="Their prompts: figures for each tag.")] = None,
    classifier: CLASSIFIER = "profanity",
    negative_label: NEGATIVE = "",
    validate: Annotated[
        Path | None, typer.Option(help="Texts that people labelled, to measure the classifier itself on.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Of --validate.")] = "text",
    label_field: Annotated[str, typer.Option(help="Of --validate.")] = "label",
    toxic_label: Annotated[list[str] | None, typer.Option(help="Of --validate: a label that means toxic. Repeatable.")] = None,
    as_json: JSON = False,
) -> None:
    """Mean probability of the negative class, the share above one half, and the worst of a prompt's completions.

    Example: `heedful evaluate toxicity --completions base.jsonl --against aligned.jsonl --prompts prompts.jsonl`
    """
    from heedful.cli.terminal import emit, table
    from heedful.data.formats import read_completions, read_prompts
    from heedful.errors import ConfigError
    from heedful.evaluate_files import accuracy_on, toxicity_classifier
    from heedful.evaluation.toxicity import toxicity_of

    if bool(validate) != bool(toxic_label):
        raise ConfigError("--validate and --toxic-label go together: a file of labelled texts, and which labels mean toxic")
    judged = toxicity_classifier(classifier, negative_label)
    measured = judged.accuracy
    if validate is not None:
        measured = accuracy_on(judged, validate, text_field=text_field, label_field=label_field, toxic=toxic_label or ())
    found = toxicity_of(
        read_completions(completions),
        read_completions(against) if against else None,
        prompts=read_prompts(prompts) if prompts else (),
        classifier=judged.classify,
    )
    found |= {"classifier": judged.name, "negative_label": judged.label, "classifier_accuracy": measured}
    if as_json:
        emit(found, True)
        return
    names = {"Mean probability": "toxicity", "Share from 0.5 on": "share_toxic", "Worst of a prompt": "expected_maximum"}
    rows = [_numbers(label, found[name], 4) for label, name in names.items()]
    rows += [_numbers(f"Mean, {tag}", row, 4) for tag, row in found.get("by_tag", {}).items()]
    table(f"Toxicity ({judged.label} by {judged.name})", _heads(against), rows)
    spread = ", ".join(f"{value:.4f} {name}" for name, value in found["deviation"].items())
    print(f"Standard deviation over completions: {spread if against else spread.removesuffix(' before')}.")
    print(textwrap.fill(of_the_classifier(measured), 80))
    one_prompt(found["num_prompts"])
    if any(found["empty"].values()):
        print(f"{sum(found['empty'].values())} completions are empty and count as not toxic.")


def of_the_classifier(measured: dict[str, Any] | None) -> str:
    from heedful.report.numbers import percent

    if measured is None or "accuracy" not in measured:
        return "How well this classifier does on such texts was not measured; --validate measures it."
    return (
        f"The classifier itself: {percent(measured['accuracy'])} of {measured['num_texts']} labelled texts right, "
        f"F1 {percent(measured['f1'])}, AUC {percent(measured['auc'])}."
    )


@app.command()
def refusal(completions: COMPLETIONS, prompts: PROMPTS, against: AGAINST = None, as_json: JSON = False) -> None:
    """Refused, incoherent and answered, on harmful prompts (tag red-team) and on safe ones.

    Example: `heedful evaluate refusal --prompts prompts.jsonl --completions completions.jsonl`
    """
    from heedful.cli.terminal import emit, table
    from heedful.data.formats import read_completions, read_prompts
    from heedful.evaluation.refusal import KINDS, refusals_of

    found = refusals_of(read_prompts(prompts), read_completions(completions), read_completions(against) if against else None)
    if as_json:
        emit(found, True)
        return
    rows = [_numbers(f"{side}, {kind}", own[kind], 1, 100) for side, own in found.items() if own for kind in KINDS]
    table("Percent of answers", _heads(against), rows)
    one_prompt(sum(own["num_prompts"] for own in found.values() if own))
    missing = [side for side, own in found.items() if own is None and side != "untold"]
    if missing:
        told = f"No prompt is {' or '.join(missing)}: harmful ones carry the tag red-team, safe ones any other tag."
        print(textwrap.fill(told, 80))


@app.command(name="hhh")
def helpful_honest_harmless(
    model: Annotated[str, typer.Option("--model", help="A folder, a hub id, an alias, or a run directory.")],
    against: Annotated[str | None, typer.Option("--against", help="Another model, as the aligned one.")] = None,
    items: Annotated[
        Path | None, typer.Option("--items", help="BIG-bench JSON, or a folder of it; else heedful's own.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Which of two answers is preferred: by letter in both orders, and by log-probability a token.

    Example: `heedful evaluate hhh --model smollm2-135m --against runs/first`
    """
    from heedful.cli.talk import policy_of
    from heedful.cli.terminal import emit, table
    from heedful.evaluate_files import hhh_of
    from heedful.evaluation.hhh import bundled_items, read_items

    asked = read_items(items) if items else bundled_items()
    found = hhh_of(policy_of(model), policy_of(against) if against else None, asked)
    if as_json:
        emit(found, True)
        return
    rows = []
    for category, own in found.items():
        for name, label in (("letters", "by letter"), ("consistent", "same in both orders"), ("likelihood", "by likelihood")):
            cells = {side: own[side][name] for side in ("before", "after") if side in own}
            change = own.get(f"{name}_change")
            rows.append((*_numbers(f"{category}, {label}", cells, 0, 100), *([_p(change)] if against else [])))
    heads = ("", "right, %") if against is None else ("", "before", "after", "p")
    table("Helpful, honest, harmless", heads, rows)


def _p(change: dict[str, Any] | None) -> str:
    return "" if change is None else f"{change.get('p_holm', change['p']):.3f}"


@app.command(name="all")
def everything(
    folder: Annotated[Path, typer.Argument(help="A run directory whose evaluation has finished.", metavar="RUN")],
    as_json: JSON = False,
) -> None:
    """Every quantity of a run, before and after, with the interval of the paired difference.

    Example: `heedful evaluate all heedful-demo --json`
    """
    from heedful.cli.terminal import emit, table
    from heedful.errors import StoreError
    from heedful.report.table import compare_table
    from heedful.store import read_json

    compared = run_directory(folder) / "evaluate" / "compare.json"
    if not compared.exists():
        raise StoreError(f"{folder}: the evaluation of this run has not finished; give the command again that began the run")
    found = read_json(compared)
    if as_json:
        emit(found, True)
    else:
        table("Held-out prompts, before and after", ("", "before", "after", "difference", ""), compare_table(found))


def _heads(against: object) -> tuple[str, ...]:
    return ("", "mean") if against is None else ("", "before", "after", "difference")


def _numbers(label: str, row: dict[str, Any], digits: int, scale: float = 1) -> tuple[str, ...]:
    """A row of a table: one model's mean with its interval, or two means and the difference with its interval."""
    from heedful.report.numbers import bounds, number, signed

    if "difference" in row:
        change = row["difference"]
        shown = [number(scale * row[side]["estimate"], digits) for side in ("before", "after")]
        told = signed(scale * change["estimate"], digits) + bounds(change, digits, scale=scale, sign=True)
        return (label, *shown, told)
    return (label, *(cell(row[side], digits, scale) for side in ("before", "after") if side in row))


def one_prompt(num_prompts: int) -> None:
    if num_prompts == 1:
        print("One prompt only: there is no interval, and nothing follows for others.")


def cell(interval: dict[str, Any], digits: int, scale: float = 1) -> str:
    from heedful.report.numbers import bounds, number

    return number(scale * interval["estimate"], digits) + bounds(interval, digits, scale=scale)
