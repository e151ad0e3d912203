"""What a run directory holds for a report, and what is wrong with its files, each trouble in a sentence."""

from __future__ import annotations

import json
import random
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heedful.errors import StoreError
from heedful.report.answers import Rows, paired, read_answers
from heedful.report.numbers import finite, listing, plural
from heedful.report.plots import METHODS
from heedful.store import read_json, read_rows

NUM_EXAMPLES = 6
NUM_REGRESSIONS = 3
NUM_HEARD, NUM_SAID = 3, 5  # prompts and evaluations of "What it said on the way"
EXAMPLES_SEED = 0  # fixed: nobody may draw until the examples please
LOGS = ("metrics", "samples", "hacking")


@dataclass(frozen=True)
class Contents:
    """metrics, samples, signs: rows of the run's own method alone. pairs: an answer before beside the one after.

    worst: those that lost most reward. notices: sentences on what was wrong with the files.
    """

    run: Path
    summary: dict[str, Any]
    manifest: dict[str, Any]
    metrics: Rows
    samples: Rows
    signs: Rows
    before: Rows
    after: Rows
    pairs: Rows
    examples: Rows
    worst: Rows
    rest: Rows
    notices: list[str]


def gather(run: Path) -> Contents:
    """Raises StoreError for a file that is there and cannot be read."""
    summary, manifest = (_object(run / f"{name}.json") for name in ("summary", "manifest"))
    notices = _stale(summary, manifest)
    if feedback := _feedback(run):
        summary |= {"feedback": feedback}
    logs = {}
    for name in LOGS:
        path = run / f"{name}.jsonl"
        logs[name] = read_rows(path)
        if cut_short(path):
            notices.append(f"The last line of {path.name} is incomplete, as a crash leaves it, and is left out.")
    method = _method(summary, logs["metrics"])
    metrics, said = _own(logs["metrics"], method)
    notices += said + _no_numbers(metrics)
    before, after = (read_answers(run / "evaluate" / f"{side}.jsonl") for side in ("before", "after"))
    notices += _odd_answers(before, after)
    pairs = paired(before, after)
    examples = random.Random(EXAMPLES_SEED).sample(pairs, min(NUM_EXAMPLES, len(pairs)))
    lost = [pair for pair in pairs if finite(pair["change"]) and pair["change"] < 0]
    worst = sorted(lost, key=lambda pair: pair["change"])[:NUM_REGRESSIONS]
    shown = {id(pair) for pair in (*examples, *worst)}
    return Contents(
        run=run,
        summary=summary,
        manifest=manifest,
        metrics=metrics,
        samples=[row for row in logs["samples"] if row.get("stage", method) == method],
        signs=[row for row in logs["hacking"] if row.get("stage", method) == method],
        before=before,
        after=after,
        pairs=pairs,
        examples=examples,
        worst=worst,
        rest=[pair for pair in pairs if id(pair) not in shown],
        notices=notices,
    )


def said_on_the_way(samples: Rows) -> list[tuple[str, Rows]]:
    """What the policy said to a few prompts as it learned; long runs show NUM_SAID of their evaluations, evenly spread."""
    by_prompt: dict[str, Rows] = {}
    for row in samples:
        by_prompt.setdefault(row["prompt"], []).append(row)
    places = [[round(i * (len(rows) - 1) / (NUM_SAID - 1)) for i in range(NUM_SAID)] for rows in by_prompt.values()]
    chosen = [[rows[i] for i in sorted(set(kept))] for rows, kept in zip(by_prompt.values(), places, strict=True)]
    return list(zip(by_prompt, chosen, strict=True))[:NUM_HEARD]


# What may be wrong


def cut_short(path: Path) -> bool:
    """Whether the last line of a log was not written to its end."""
    if not path.exists():
        return False
    last = path.read_bytes().rpartition(b"\n")[2]
    try:
        return bool(last) and not isinstance(json.loads(last), dict)
    except ValueError:
        return True


def _stale(summary: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """A stage that ran, or runs, after the figures of summary.json were made."""
    stages = dict(manifest.get("stages", {}))
    made = stages.pop("report", {}).get("finished")
    later = [name for name, entry in stages.items() if _after(entry, made)]
    if not summary or not later:
        return []
    one = len(later) == 1
    return [
        f"The stage{'' if one else 's'} {listing(later)} {'was' if one else 'were'} begun again after the figures on this page "
        "were made: they are those of the run before, the plots are newer. The same heedful run makes them agree."
    ]


def _after(entry: dict[str, Any], made: Any) -> bool:
    if entry.get("state") != "done":
        return True
    return finite(made) and finite(entry.get("finished")) and entry["finished"] > made


def _method(summary: dict[str, Any], metrics: Rows) -> str:
    """The method of the run: the summary's, else the one that wrote last."""
    named = summary.get("align", {}).get("method")
    wrote = [row["stage"] for row in metrics if row.get("stage") in METHODS]
    return str(named or (wrote[-1] if wrote else METHODS[0]))


def _own(metrics: Rows, method: str) -> tuple[Rows, list[str]]:
    """The rows of this run alone, one a step; what others left in its folder is told of."""
    notices = []
    strange = Counter(row["stage"] for row in metrics if row.get("stage") in METHODS and row["stage"] != method)
    for stage, number in strange.items():
        notices.append(
            f"metrics.jsonl also holds {plural(number, 'step')} of {stage.upper()}, which another run left in this folder; "
            f"only {method.upper()} is shown."
        )
    kept: dict[str, Rows] = {}
    replaced: Counter[str] = Counter()
    for row in metrics:
        stage = row.get("stage")
        if not isinstance(stage, str) or stage in strange or not finite(row.get("step")):
            continue
        rows = kept.setdefault(stage, [])
        while rows and rows[-1]["step"] >= row["step"]:
            rows.pop()
            replaced[stage] += 1
        rows.append(row)
    for stage, number in replaced.items():
        notices.append(
            f"metrics.jsonl holds {plural(number, 'step')} of {stage} twice, as when two runs share a folder; the later lines "
            "are shown. Give each run a folder of its own."
        )
    return [row for rows in kept.values() for row in rows], notices


def _no_numbers(metrics: Rows) -> list[str]:
    """NaN, infinities and nulls among the metrics."""
    found = Counter(name for row in metrics for name, value in row.items() if not isinstance(value, str) and not finite(value))
    if not found:
        return []
    names = listing([f"{name} ({plural(number, 'step')})" for name, number in found.most_common(6)])
    return [f"In metrics.jsonl these are no numbers at some steps, which the plots leave out: {names}."]


def _odd_answers(before: Rows, after: Rows) -> list[str]:
    sides = (("before", before), ("after", after))
    notices = []
    empty = [(name, sum(not row["text"].strip() for row in rows), len(rows)) for name, rows in sides]
    if any(number for _, number, _ in empty):
        said = listing([f"{number} of {total} {name}" for name, number, total in empty])
        notices.append(f"Some held-out answers are empty: {said}. They are counted like all others.")
    none = [(name, sum("reward" in row and not finite(row["reward"]) for row in rows)) for name, rows in sides]
    if any(number for _, number in none):
        said = listing([f"{number} {name}" for name, number in none if number])
        notices.append(f"Some held-out answers have a reward that is no number: {said}. No plot shows them.")
    return notices


# Reading


def _feedback(run: Path) -> dict[str, Any]:
    """The result of the constitution's second stage that made the preferences which this run learned from; {} for others."""
    try:
        settings = tomllib.loads((run / "heedful.toml").read_text(encoding="utf-8"))
        named = [Path(str(file)) for file in settings["reward"]["preferences"]]
    except (OSError, ValueError, LookupError, TypeError):  # the page on the settings says what is wrong with them
        named = []
    for folder in (run / "prefer", *(file.parent for file in named)):
        found = _object(folder / "result.json")
        if {"judge", "forced", "num_preferences", "why_refused"} <= set(found):
            return found
    return {}


def _object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise StoreError(f"{path}: expected a JSON object, found {type(found).__name__}; run 'heedful run' again")
    return found
