"""heedful evaluate toxicity, hhh, refusal, winrate, summaries, all."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heedful.cli.flow import JSON, OVERRIDES, run_directory

if TYPE_CHECKING:
    from heedful.records import Completion

app = typer.Typer(help="Measure models and their completions.", no_args_is_help=True)

COMPLETIONS = Annotated[Path, typer.Option("--completions", help="A file of completions.")]
AGAINST = Annotated[Path | None, typer.Option("--against", help="Another model's completions of the same prompts.")]
PROMPTS = Annotated[Path, typer.Option("--prompts", help="The prompts that were completed.")]
CLASSIFIER = Annotated[
    str,
    typer.Option(help="'profanity', a folder of 'heedful reward train' on labelled texts, or a Hugging Face classifier."),
]
NEGATIVE = Annotated[str, typer.Option("--negative-label", help="The classifier's label that means toxic.")]
REWARD = Annotated[str | None, typer.Option("--reward", help="A reward that judges: the larger one wins.")]


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
    print(textwrap.fill(_of_the_classifier(measured), 80))
    _one_prompt(found["num_prompts"])
    if any(found["empty"].values()):
        print(f"{sum(found['empty'].values())} completions are empty and count as not toxic.")


def _of_the_classifier(measured: dict[str, Any] | None) -> str:
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
    _one_prompt(sum(own["num_prompts"] for own in found.values() if own))
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


@app.command()
def winrate(
    completions: COMPLETIONS,
    against: Annotated[Path, typer.Option("--against", help="The completions whose wins are counted.")],
    prompts: Annotated[Path | None, typer.Option("--prompts", help="What they answer, for a reward to read.")] = None,
    reward: REWARD = None,
    judgements: Annotated[
        Path | None, typer.Option(help="In place of a reward: what people said in an A-or-B project.")
    ] = None,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """How often the second model's answer wins: raw, and as if both were equally long.

    Example: `heedful evaluate winrate --prompts prompts.jsonl --completions base.jsonl --against aligned.jsonl --reward rm`
    """
    from heedful.cli.terminal import emit
    from heedful.config import parse, with_reward
    from heedful.data.formats import read_completions, read_prompts
    from heedful.errors import ConfigError
    from heedful.evaluate_files import duels_by_reward
    from heedful.evaluation.winrate import by_people, paired, win_rate
    from heedful.records import Judgement, read_jsonl

    if bool(reward) == bool(judgements):
        raise ConfigError("say who judges: --reward SOURCE, or --judgements FILE by people")
    if bool(prompts) != bool(reward):
        raise ConfigError("a reward reads --prompts with the answers; people have judged without, so leave one of the two out")
    first, second = read_completions(completions), read_completions(against)
    if judgements:
        duels = by_people(paired(first, second), read_jsonl(judgements, Judgement, unique="id"))
    elif prompts:
        config = with_reward(parse({}, "--set", tuple(overrides or ())), reward, "", "auto")
        (duels,) = duels_by_reward(config, read_prompts(prompts), {"first": first, "second": second}).values()
    found = win_rate(duels)
    emit(found, as_json, _of_wins(found))
    if not as_json:
        _one_prompt(found["num_prompts"])


LEAST_DECIDED = 6  # pairs: of fewer, even all won, a sign test does not tell a coin


def _of_wins(found: dict[str, Any]) -> str:
    from heedful.report.numbers import percent

    controlled = found["length_controlled"]
    equal = percent(controlled) if controlled else "cannot be told"
    lines = [
        f"The second one wins {percent(found['win_rate'])}: {found['wins']} wins, {found['ties']} ties, {found['losses']} "
        f"losses on {found['num_prompts']} prompts (sign test p = {found['p']:.3f}).",
        f"As if equally long: {equal}; its answers are {abs(found['words']):.1f} words "
        f"{'longer' if found['words'] > 0 else 'shorter'}.",
    ]
    decided, needed = found["wins"] + found["losses"], found["pairs_needed"]
    if needed is not None and found["p"] >= 0.05 and decided < max(needed, LEAST_DECIDED):
        needed = max(needed, LEAST_DECIDED)
        lines.append(f"It takes about {needed:,} decided pairs to tell such a rate from a coin's; there are {decided}.")
    return "\n".join(textwrap.fill(line, 80) for line in lines)


@app.command()
def summaries(
    completions: Annotated[
        list[str], typer.Option("--completions", metavar="NAME=FILE", help="A side; the first is the base.")
    ],
    prompts: Annotated[Path, typer.Option("--prompts", help="Prompts with a human summary in their field 'reference'.")],
    reward: REWARD = None,
    classifier: CLASSIFIER = "profanity",
    negative_label: NEGATIVE = "",
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """ROUGE and toxicity of summaries, and with a reward the win rates among them and the human ones.

    Example: `heedful evaluate summaries --prompts dialogsum.jsonl --completions base=b.jsonl --completions aligned=a.jsonl`
    """
    from heedful.cli.terminal import emit, table
    from heedful.config import parse, with_reward
    from heedful.data.formats import read_completions, read_prompts
    from heedful.evaluate_files import duels_by_reward, toxicity_classifier
    from heedful.evaluation.summaries import REFERENCE, as_completions, references_of, rouge_of
    from heedful.evaluation.toxicity import toxicity_of
    from heedful.evaluation.winrate import tournament

    known = read_prompts(prompts)
    references = references_of(known)
    sides = {name: read_completions(file) for name, file in _named(completions).items()}
    judged = toxicity_classifier(classifier, negative_label)
    found: dict[str, Any] = {"rouge": rouge_of(references, sides)}
    base, *others = sides
    found["toxicity"] = {base: toxicity_of(sides[base], classifier=judged.classify)}
    found["toxicity"] |= {name: toxicity_of(sides[base], sides[name], classifier=judged.classify) for name in others}
    if reward is not None:
        config = with_reward(parse({}, "--set", tuple(overrides or ())), reward, "", "auto")
        # Of what has a human summary and was answered: prompts that were too long for a model are in no file of completions.
        answered = {completion.prompt_id for completion in sides[base]}
        everyone: dict[str, list[Completion]] = {
            name: [completion for completion in own if completion.prompt_id in references] for name, own in sides.items()
        }
        everyone[REFERENCE] = as_completions({id_: text for id_, text in references.items() if id_ in answered})
        found["win_rates"] = tournament(duels_by_reward(config, known, everyone))
    if as_json:
        emit(found, True)
        return
    rows = [
        (name, *(_cell(own[kind]["mean"], 1, 100) for kind in own), _cell(_last(found["toxicity"][name]["toxicity"]), 4))
        for name, own in found["rouge"].items()
    ]
    table("Summaries", ("", "ROUGE-1", "ROUGE-2", "ROUGE-L", "toxicity"), rows)
    _one_prompt(found["toxicity"][base]["num_prompts"])
    for row in found.get("win_rates", ()):
        print(f"{row['second']} against {row['first']}: {_cell(row['win_rate'], 1, 100)}%, p {row['p_holm']:.3f}")


def _last(row: dict[str, Any]) -> dict[str, Any]:
    """Of one model, or of the second of two."""
    return dict(row.get("after", row["before"]))


def _named(given: list[str]) -> dict[str, Path]:
    from heedful.errors import ConfigError
    from heedful.evaluation.summaries import REFERENCE

    found: dict[str, Path] = {}
    for one in given:
        name, equals, file = one.partition("=")
        if not (equals and name and file) or name in found or name == REFERENCE:
            raise ConfigError(f"--completions {one}: expected NAME=FILE, each name once and none of them 'reference'")
        found[name] = Path(file)
    return found


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
    return (label, *(_cell(row[side], digits, scale) for side in ("before", "after") if side in row))


def _one_prompt(num_prompts: int) -> None:
    if num_prompts == 1:
        print("One prompt only: there is no interval, and nothing follows for others.")


def _cell(interval: dict[str, Any], digits: int, scale: float = 1) -> str:
    from heedful.report.numbers import bounds, number

    return number(scale * interval["estimate"], digits) + bounds(interval, digits, scale=scale)
