"""heedful persons fit, learn, score, best, ask, evaluate, list; persons_data.py has the commands on what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from heedful.cli import persons_data
from heedful.cli.flow import JSON
from heedful.cli.persons_data import COMPLETIONS, FOLDER, JUDGEMENTS, PAIRS, PROMPTS, READS, VOTES, record_files

app = typer.Typer()
persons_data.register(app)

PERSON = Annotated[str, typer.Option("--person", help="Whose wishes; one without labels gets the global model.")]
OWNER = Annotated[str, typer.Option("--person", help="Whose the pairs are that name no labeler.")]
FEATURES = Annotated[
    str, typer.Option("--features", help="minilm-22m, another encoder or language model, surface, or a file .npz.")
]
AGAIN = Annotated[str, typer.Option("--features", help="For new completions: by default what the folder was fitted on.")]


@app.command()
def fit(
    output: Annotated[Path, typer.Option("--output", help="Folder for the personal reward model.")],
    votes: VOTES = None,
    judgements: JUDGEMENTS = None,
    preferences: PAIRS = None,
    prompts: PROMPTS = None,
    completions: COMPLETIONS = None,
    person: OWNER = "",
    features: FEATURES = "minilm-22m",
    reads: READS = "prompt+answer",
    num_heads: Annotated[int, typer.Option(min=0, help="Heads in which persons may differ.")] = 4,
    ridge_global: Annotated[float, typer.Option(min=1e-6, help="Inverse prior variance of the global head.")] = 1.0,
    ridge_heads: Annotated[float, typer.Option(min=1e-6, help="The same of the heads in which persons differ.")] = 16.0,
    text_scale: Annotated[
        float, typer.Option(min=0, help="Of a judged text's own place beside its features; 0 for none.")
    ] = 0.5,
    safety_votes: Annotated[
        list[Path] | None,
        typer.Option("--safety-votes", help="The team's votes, 1 for safe: a safety head a file. Repeatable."),
    ] = None,
    safety_preferences: Annotated[
        list[Path] | None, typer.Option("--safety-preferences", help="The team's pairs, the safe one chosen. Repeatable.")
    ] = None,
    safety_floor: Annotated[float, typer.Option(min=0, help="Least weight of a safety head's score, for everybody.")] = 0.5,
    safety_sd: Annotated[float, typer.Option(min=0, help="Prior sd of a person's safety weight.")] = 0.5,
    safety_least: Annotated[float, typer.Option(help="Safety score below which 'best' takes another answer.")] = 0.0,
    choose: Annotated[
        bool, typer.Option("--choose", help="Find num-heads, ridge-heads and text-scale on held-back labels.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Which labels --choose holds back.")] = 0,
    as_json: JSON = False,
) -> None:
    """Fit heads that all persons share and a small weight vector for each, from votes, rankings and pairs.

    Example: `heedful persons fit --votes votes.jsonl --prompts prompts.jsonl --completions completions.jsonl --output persons`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.persons.fitting import Settings
    from heedful.persons.project import fit_files

    shared: dict[str, Any] = {"prompts": prompts or (), "completions": completions or ()}
    files = record_files(votes, judgements, preferences, prompts, completions, person)
    safety = [
        *(type(files)(votes=[path], **shared) for path in safety_votes or ()),
        *(type(files)(preferences=[path], person="the team", **shared) for path in safety_preferences or ()),
    ]
    settings = Settings(
        num_heads=num_heads,
        ridge_global=ridge_global,
        ridge_heads=ridge_heads,
        text_scale=text_scale,
        safety_sd=safety_sd,
        safety_floor=safety_floor,
    )
    with Bars() as bars:
        found = fit_files(
            files,
            output,
            settings,
            bars,
            source=features,
            reads=reads,
            safety_files=safety,
            safety_least=safety_least,
            choosing=choose,
            seed=seed,
        )
    emit(found, as_json, _counts(found))


@app.command()
def learn(
    folder: FOLDER,
    votes: VOTES = None,
    judgements: JUDGEMENTS = None,
    preferences: PAIRS = None,
    prompts: PROMPTS = None,
    completions: COMPLETIONS = None,
    person: OWNER = "",
    features: AGAIN = "",
    as_json: JSON = False,
) -> None:
    """Add labels of new or known persons at once; the shared heads stay as they are.

    Example: `heedful persons learn persons --votes new.jsonl --prompts prompts.jsonl --completions completions.jsonl`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.persons.project import learn_files

    with Bars() as bars:
        files = record_files(votes, judgements, preferences, prompts, completions, person)
        found = learn_files(folder, files, bars, source=features)
    emit(found, as_json, f"learned from {found['learned']} labels; {_counts(found)}")


@app.command()
def score(
    folder: FOLDER,
    person: PERSON,
    prompts: PROMPTS = None,
    completions: COMPLETIONS = None,
    features: AGAIN = "",
    as_json: JSON = False,
) -> None:
    """Reward of each completion for a person, with the standard deviation that comes of knowing the person so little.

    Example: `heedful persons score persons --person ada --prompts prompts.jsonl --completions completions.jsonl`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.persons.project import score_files

    with Bars() as bars:
        found = score_files(folder, person, prompts or (), completions or (), bars, source=features)
    rows = [f"{row['reward']:+.3f} ± {row['sd']:.3f}  {row['id']}" for row in found["completions"]]
    emit(found, as_json, _lines([_whose(found), *rows]))


@app.command()
def best(
    folder: FOLDER,
    person: PERSON,
    prompts: PROMPTS = None,
    completions: COMPLETIONS = None,
    caution: Annotated[float, typer.Option(min=0, help="Standard deviations taken off each reward before comparing.")] = 0.0,
    features: AGAIN = "",
    as_json: JSON = False,
) -> None:
    """The best of several completions of each prompt for a person; unsafe ones are out while one is safe.

    Example: `heedful persons best persons --person ada --prompts prompts.jsonl --completions completions.jsonl`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.persons.project import best_files

    with Bars() as bars:
        found = best_files(folder, person, prompts or (), completions or (), bars, caution=caution, source=features)
    rows = []
    for row in found["choices"]:
        said = f", {len(row['vetoed'])} left out for safety" if row["vetoed"] else ", all unsafe" if row["unsafe"] else ""
        sure = f"best of {row['num_answers']} with probability {row['probability']:.2f}{said}"
        rows.append(f"{row['prompt_id']}: {row['completion_id']}  {row['reward']:+.3f} ± {row['sd']:.3f}, {sure}")
    emit(found, as_json, _lines([_whose(found), *rows]))


@app.command()
def ask(
    folder: FOLDER,
    person: PERSON,
    prompts: PROMPTS = None,
    completions: COMPLETIONS = None,
    count: Annotated[int, typer.Option(min=1, help="Pairs to name.")] = 1,
    by: Annotated[
        Literal["information", "variance", "random"], typer.Option("--by", help="What makes a pair worth asking.")
    ] = "information",
    features: AGAIN = "",
    as_json: JSON = False,
) -> None:
    """The pairs whose answers would tell most about a person, the most telling first.

    Example: `heedful persons ask persons --person ada --prompts prompts.jsonl --completions completions.jsonl --count 5`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.persons.project import ask_files

    with Bars() as bars:
        found = ask_files(folder, person, prompts or (), completions or (), bars, count=count, by=by, source=features)
    rows = [
        f"{row['prompt_id']}: {row['first']} or {row['second']}?  {row['information']:.3f} nats, "
        f"the first is preferred with probability {row['probability']:.2f}"
        for row in found["questions"]
    ]
    emit(found, as_json, _lines([_whose(found), *rows]))


@app.command()
def evaluate(
    folder: FOLDER,
    hide: Annotated[
        float, typer.Option("--hide", min=0.01, max=0.99, help="Share of each person's labels that is hidden.")
    ] = 0.8,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Draws of what is hidden.")] = 3,
    as_json: JSON = False,
) -> None:
    """Personal beside global model on hidden labels, both fitted on the others: log-loss, accuracy, AUC, with intervals.

    Example: `heedful persons evaluate persons --hide 0.8 --seeds 5`
    """
    from heedful.cli.terminal import Bars, emit, table
    from heedful.persons.project import evaluate_folder
    from heedful.report.numbers import bounds, number, signed

    with Bars() as bars:
        found = evaluate_folder(folder, bars, share=hide, num_seeds=seeds)
    if as_json:
        emit(found, True)
        return
    rows = []
    for measure in ("log_loss", "accuracy", "auc"):
        if measure in found:
            row = found[measure]
            apart = signed(row["difference"]["estimate"], 4) + bounds(row["difference"], 4, sign=True)
            sides = (number(row[side]["estimate"], 4) for side in ("before", "after"))
            rows.append((measure, str(row["num_persons"]), *sides, apart))
    table(f"{100 * hide:.0f}% of each person's labels hidden", ("", "persons", "global", "personal", "difference"), rows)


@app.command("list")
def list_command(folder: FOLDER, as_json: JSON = False) -> None:
    """The persons with their labels and weights, in units of the prior's sd: 0 is the population's mean.

    Example: `heedful persons list persons`
    """
    from heedful.cli.terminal import emit, table
    from heedful.persons.keeping import list_persons

    found = list_persons(folder)
    if as_json:
        emit(found, True)
        return
    rows = [
        (
            _lines([row["person"]]),
            str(row["num_labels"]),
            " ".join(f"{weight:+.2f}±{sd:.2f}" for weight, sd in zip(row["weights"], row["sd"], strict=True)),
        )
        for row in found["persons"]
    ]
    table("Persons", ("", "labels", "weights"), rows)


def _counts(found: dict[str, Any]) -> str:
    counts = f"{found['num_persons']} persons, {found['num_labels']} labels of {found['num_texts']} completions"
    return f"{counts}, {found['settings']['num_heads']} heads; in {found['output']}"


def _whose(found: dict[str, Any]) -> str:
    if found["num_labels"]:
        return f"{found['person']}, known by {found['num_labels']} labels:"
    return f"{found['person']} has given no label, so this is the global model:"


def _lines(rows: list[str]) -> str:
    """Rows in which nothing drives the terminal: names and ids come from files of others."""
    return "\n".join("".join(c if c.isprintable() else "\ufffd" for c in row) for row in rows)
