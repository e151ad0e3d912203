"""heedful doctor, init, demo, run, report."""

from __future__ import annotations

import textwrap
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
OVERRIDES = Annotated[list[str] | None, typer.Option("--set", help="Override a key, as in ppo.max_steps=10. Repeatable.")]

FIRST_STEPS = 20  # of a first run, so that it ends while one looks on; the default is for a run that somebody tends


def register(app: typer.Typer) -> None:
    for command in (doctor, init, demo, run, report):
        app.command()(command)


def doctor(
    model: Annotated[
        str | None, typer.Option("--model", help="Show whether this model fits: an alias, a folder or a hub id.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Show what this machine can do: device, number types, versions, model sources; with --model what fits into its memory.

    Example: `heedful doctor --model smollm2-135m`
    """
    if model is not None:
        _fit(model, as_json)
        return
    import os
    import shutil
    import socket

    from heedful.cli.terminal import emit
    from heedful.engine.device import choose_device, choose_dtype
    from heedful.models.aliases import ALIASES, cache_folder
    from heedful.store import versions

    device = choose_device()
    cache = cache_folder()
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    try:
        socket.create_connection(("huggingface.co", 443), timeout=3).close()
        hub = "reachable"
    except OSError as error:
        hub = f"not reachable ({error.strerror or error}); folders and aliases still work"
    facts: dict[str, Any] = {
        "device": str(device),
        "dtype": str(choose_dtype("auto", device)).removeprefix("torch."),
        "cores": os.cpu_count(),
        "free_disk_gb": round(shutil.disk_usage(place).free / 1e9, 1),
        "cache": str(cache),
        "hub": hub,
        "models": {
            name: "in the cache" if (cache / "models" / name).is_dir() else model.about for name, model in ALIASES.items()
        },
        "versions": versions(),
    }
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {key:<14}{text}" for key, text in value.items())]
        else:
            lines.append(f"{name:<16}{value}")
    emit(facts, as_json, "\n".join(lines))


def _fit(model: str, as_json: bool) -> None:
    from heedful.cli.terminal import emit, table
    from heedful.fit import fit, gigabytes, rows_of_roles, rows_of_stages

    found = fit(model)
    if as_json:
        emit(found, True)
        return
    print(f"{found['model']}: {found['num_weights'] / 1e6:,.1f} million weights, {found['dtype']}, on a processor")
    parts = f"{found['lanes']} parts of {found['part_tokens']} tokens at a time"
    print(f"default settings: {parts}, {found['rows']} rows of at most {found['row_tokens']}")
    print()
    table("What holds memory", ("", "MB"), rows_of_roles(found))
    print()
    table("Peak, GB", ("stage", "kept", "recomputed"), rows_of_stages(found))
    total, available = (gigabytes(found["memory"][name]) for name in ("total", "available"))
    print(f"\nThis machine has {total} GB, of which {available} GB are available.")
    print(textwrap.fill(found["sentence"], 80))


def init(folder: Annotated[Path, typer.Argument(help="Where to put heedful.toml and prompts.jsonl.")]) -> None:
    """Write heedful.toml with every default explained, and a small prompt file to replace by your own.

    Example: `heedful init my-project && heedful run my-project/heedful.toml`
    """
    from heedful.config import Config, to_toml
    from heedful.data.bundled import choose, load_bundled, split
    from heedful.errors import StoreError
    from heedful.store import write_jsonl, write_text

    for name in ("heedful.toml", "prompts.jsonl"):
        if (folder / name).exists():
            raise StoreError(f"{folder / name}: exists already; choose another folder or move the file away")
    head = (
        "# heedful run heedful.toml --dir runs/first\n"
        "# Each key shows its default, but for prompts.files and max_steps; what you do not need may be deleted.\n"
        "# Relative paths are seen from the folder of this file.\n\n"
    )
    few = {"max_steps": FIRST_STEPS}
    config = Config.model_validate({"prompts": {"files": ("prompts.jsonl",)}, "ppo": few, "rloo": few, "grpo": few})
    write_text(folder / "heedful.toml", head + to_toml(config, explain=True))
    examples = [p for name, number in (("train", 24), ("heldout", 12)) for p in choose(split(load_bundled(), name), number, 0)]
    write_jsonl(folder / "prompts.jsonl", examples)
    print(f"wrote {folder / 'heedful.toml'} and {folder / 'prompts.jsonl'}")
    print(f"a run takes {FIRST_STEPS} steps of PPO (ppo.max_steps), a quarter of an hour on two cores")
    print(f"put your prompts in the place of the {len(examples)} in prompts.jsonl, then: heedful run {folder / 'heedful.toml'}")


def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Run directory.")] = Path("heedful-demo"),
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Align a real 135M model on the bundled prompts, with simulated labelers, and show what changed.

    Example: `heedful demo --dir runs/demo`
    """
    from heedful.config import parse

    text = files("heedful").joinpath("data", "bundled", "demo.toml").read_text(encoding="utf-8")
    import tomllib

    config = parse(tomllib.loads(text), "demo.toml", tuple(overrides or ()))
    _run(config, folder, None, None, as_json, f"heedful demo --dir {folder}")


def run(
    config: Annotated[Path, typer.Argument(help="A heedful.toml.")],
    folder: Annotated[Path | None, typer.Option("--dir", help="Run directory; runs/NAME of the file by default.")] = None,
    from_stage: Annotated[str | None, typer.Option("--from", help="Run this stage and all after it anew.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Stop after this stage; the same command without it goes on.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Only go on with a run that was begun; never begin one.")] = False,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """Run the whole flow; an interrupted run goes on where it stopped.

    Example: `heedful run heedful.toml --dir runs/first --set ppo.max_steps=10`

    With `rounds = 3` it goes through them. With `round.judges = "people"` it waits for people on a labelling server; the same
    command goes on after an interruption. To have people rank in a file: `--until sample`, then
    `--set label.judgements=judgements.jsonl`
    """
    from heedful.config import load
    from heedful.errors import StoreError
    from heedful.rounds import rounds_in

    loaded = load(config, tuple(overrides or ()))
    folder = folder or Path("runs") / (config.parent.name if config.name == "heedful.toml" else config.stem)
    if resume and not ((folder / "manifest.json").is_file() or rounds_in(folder)):
        raise StoreError(f"{folder}: no run was begun there that could go on; check --dir, or leave out --resume")
    _run(loaded, folder, from_stage, until, as_json, f"heedful run {config} --dir {folder}")


def _run(config: Any, folder: Path, from_stage: str | None, until: str | None, as_json: bool, command: str) -> None:
    from heedful.cli.terminal import Bars, emit, table
    from heedful.report.findings import repetition
    from heedful.report.numbers import percent
    from heedful.report.rounds import table as table_of_rounds
    from heedful.report.table import compare_table
    from heedful.rounds import rounds_in
    from heedful.scale.launch import first_start, share_work
    from heedful.stage_names import stages_of
    from heedful.store import Run

    stages_of(config, from_stage, until)  # a slip in a name leaves no folder behind

    def work(place: Path) -> dict[str, Any]:
        from heedful.flows.rounds import run_rounds
        from heedful.pipeline import Pipeline

        again = from_stage if first_start() else None
        if config.rounds > 1:
            with Bars() as bars:
                return run_rounds(config, place, bars, command, again, until)
        with Run(place) as opened, Bars() as bars:
            return Pipeline(config, opened, bars, command)(again, until)

    summary = share_work(config.scale, folder, work)
    if not summary:
        folder = (rounds_in(folder) or [folder])[-1] / str(until)
        by_people = until == "sample" and not config.label.judgements
        more = "; judgements by people: add --set label.judgements=FILE" if by_people else ""
        text = f"stopped after {until}: {folder}\ngo on with the same command without --until{more}"
        emit({"stopped_after": until, "folder": str(folder)}, as_json, text)
        return
    if as_json:
        emit(summary, True)
        return
    if summary["simulated_labelers"]:
        print("Labels came from simulated labelers going by a written rubric, not from people.")
    table("Held-out prompts, before and after", ("", "before", "after", "difference", ""), compare_table(summary))
    print()
    accuracy = summary.get("reward_model", {})
    if "num_pairs" in accuracy:
        print(
            f"reward model  {percent(accuracy['accuracy'])} of {accuracy['num_pairs']} held-out pairs; "
            f"longest answer {100 * accuracy['longest_answer']:.1f}%"
        )
    kl, target = summary["kl"], summary["kl_target"]
    print(f"sequence KL   {kl['estimate']:.2f} nats" + (f" (target {target:g})" if target else ""))
    for sentence in repetition(summary):
        print("\n" + textwrap.fill(sentence, 80))
    for labeler in summary["labelers"]:
        q = "" if labeler.get("q") is None else f" (q = {labeler['q']:.3f})"
        print(f"{labeler['labeler']:<14}{labeler['verdict']}{q}")
    if "rounds" in summary:
        print()
        columns = ("", "labels so far", "reward", "rubric", "wins over the one before")
        table("Rounds, on held-out prompts", columns, table_of_rounds(summary["rounds"]))
    minutes = sum(summary["seconds"].values()) / 60
    predicted = summary["predicted_memory_mb"]
    beside = "" if predicted is None else f" ({predicted / 1024:.1f} predicted)"
    print(f"\n{minutes:.1f} minutes, peak memory {summary['peak_memory_mb'] / 1024:.2f} GB{beside}")
    print(f"report        {folder / ('rounds.html' if 'rounds' in summary else 'report.html')}")
    print(f"talk to it    heedful chat {folder} --compare {config.model.source}")


def report(folder: Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]) -> None:
    """Write report.html and report.md of a run anew, and the model card in its policy's folder; of rounds, those of each.

    Example: `heedful report runs/demo`
    """
    from heedful.report.build import build
    from heedful.report.rounds import build_rounds
    from heedful.rounds import rounds_in

    rounds = rounds_in(folder)
    for place in rounds or [run_directory(folder)]:
        print(build(place))
    if (folder / "rounds.json").is_file():
        print(build_rounds(folder))


def run_directory(folder: Path) -> Path:
    """The folder, once it is known to be a run directory."""
    from heedful.errors import StoreError

    if not (folder / "manifest.json").is_file():
        raise StoreError(f"{folder}: no run directory; name one that 'heedful run' wrote")
    return folder
