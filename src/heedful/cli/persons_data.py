"""heedful persons export, delete, features, adapter, and the options that the other commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from heedful.cli.flow import JSON, OVERRIDES

FOLDER = Annotated[Path, typer.Argument(metavar="FOLDER", help="What 'heedful persons fit' wrote.")]
NAME = Annotated[str, typer.Argument(metavar="PERSON", help="A person's name, as the field labeler has it.")]
PROMPTS = Annotated[list[Path] | None, typer.Option("--prompts", help="The prompts that were completed. Repeatable.")]
COMPLETIONS = Annotated[list[Path] | None, typer.Option("--completions", help="Their completions. Repeatable.")]
VOTES = Annotated[list[Path] | None, typer.Option("--votes", help="Thumbs up and down. Repeatable.")]
JUDGEMENTS = Annotated[list[Path] | None, typer.Option("--judgements", help="Rankings. Repeatable.")]
PAIRS = Annotated[
    list[Path] | None, typer.Option("--preferences", help="Pairs, whose field labeler names the person. Repeatable.")
]
READS = Annotated[Literal["prompt+answer", "answer"], typer.Option("--reads", help="What a model reads.")]


def register(app: typer.Typer) -> None:
    for command in (export, delete, features, adapter):
        app.command()(command)


def export(
    folder: FOLDER,
    person: NAME,
    output: Annotated[Path, typer.Option("--output", help="A JSON file for what is kept of the person.")],
    as_json: JSON = False,
) -> None:
    """Write all that the folder holds of a person: labels, weights, and how sure they are.

    Example: `heedful persons export persons ada --output ada.json`
    """
    from heedful.cli.terminal import emit
    from heedful.persons.keeping import export_person

    found = export_person(folder, person, output)
    emit(found, as_json, f"{found['num_labels']} labels and the weights of {person!r} in {output}")


def delete(folder: FOLDER, person: NAME, as_json: JSON = False) -> None:
    """Take a person out: labels, weights, texts only they judged; heads that learned from them are fitted anew.

    Example: `heedful persons delete persons ada`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.persons.keeping import delete_person

    with Bars() as bars:
        found = delete_person(folder, person, bars)
    heads = "the heads were fitted anew" if found["heads_fitted_anew"] else "no head had learned from them"
    said = f"{found['labels_removed']} labels and {found['texts_removed']} texts of {person!r} are gone; {heads}"
    emit(found, as_json, f"{said}. Records that the folder was fitted from are yours to delete.")


def features(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="minilm-22m, another encoder or language model, or surface.")],
    output: Annotated[Path, typer.Option("--output", help="A file .npz for --features of the other commands.")],
    prompts: PROMPTS = None,
    completions: COMPLETIONS = None,
    reads: READS = "prompt+answer",
    as_json: JSON = False,
) -> None:
    """Read completions once, for any number of fits; an interrupted reading goes on.

    Example: `heedful persons features minilm-22m --prompts prompts.jsonl --completions completions.jsonl --output minilm.npz`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.persons.project import features_file

    with Bars() as bars:
        found = features_file(source, prompts or (), completions or (), output, reads, bars)
    emit(found, as_json, f"{found['num_features']} features of {found['num_texts']} completions in {output}")


def adapter(
    config: Annotated[Path, typer.Option("--config", help="A heedful.toml; model and the method's section are read.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for checkpoints, metrics and the policy.")],
    person: Annotated[list[str], typer.Option("--person", help="Whose labels to learn from; several make a group.")],
    votes: VOTES = None,
    judgements: JUDGEMENTS = None,
    preferences: PAIRS = None,
    prompts: PROMPTS = None,
    completions: COMPLETIONS = None,
    method: Annotated[Literal["dpo", "kto"], typer.Option(help="As in 'heedful align'.")] = "dpo",
    least: Annotated[int | None, typer.Option("--least", min=1, help="Refuse below this many of their labels; 200.")] = None,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """A LoRA adapter of a person's or a group's own, by `heedful align dpo` or `kto` on their labels, once there are enough.

    Example: `heedful persons adapter --config heedful.toml --person ada --preferences pairs.jsonl --output ada`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.config import LEAST_LABELS, load
    from heedful.stages.personal import align_persons

    files = record_files(votes, judgements, preferences, prompts, completions, person[0] if len(person) == 1 else "")
    with Bars() as bars:
        loaded = load(config, tuple(overrides or ()))
        found = align_persons(loaded, output, bars, files=files, persons=person, method=method, least=least or LEAST_LABELS)
    emit(
        found, as_json, f"{found['steps']} steps on {found['num_labels']} labels; the policy is in {output / method / 'policy'}"
    )


def record_files(
    votes: list[Path] | None,
    judgements: list[Path] | None,
    preferences: list[Path] | None,
    prompts: list[Path] | None,
    completions: list[Path] | None,
    person: str,
) -> Any:
    """What the options name, as `heedful.persons.reading` takes it."""
    from heedful.persons.reading import Files

    return Files(votes or (), judgements or (), preferences or (), prompts or (), completions or (), person)
