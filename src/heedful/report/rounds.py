"""The rounds of a run beside each other: rounds.html for people, rounds.md for wherever Markdown is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from heedful.errors import StoreError
from heedful.report.numbers import bounds, number, percent, signed, sound
from heedful.store import read_json, write_text

MEASURES = {"reward": "Reward", "rubric": "Rubric", "gold": "Gold reward"}
COLUMNS = ("", "labels", "pairs", "alpha", "held-out pairs right", "KL from base")
MEASURE_COLUMNS = ("", "mean", "against the one before", "", "wins over it")


def build_rounds(folder: Path) -> Path:
    """Writes both pages from rounds.json; returns the first. Raises StoreError where it is no such file."""
    shown = contents(folder)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("heedful.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    target = folder / "rounds.html"
    write_text(target, sound(environment.get_template("rounds.html.jinja").render(**shown)))
    write_text(folder / "rounds.md", sound(_markdown(shown)))
    return target


def contents(folder: Path) -> dict[str, Any]:
    """name, sentence, labels: rows of COLUMNS; measures: a heading and rows each, as text."""
    found = read_json(folder / "rounds.json", "run 'heedful run' again")
    try:
        rows = list(found["rounds"])
        names = [name for name in MEASURES if name in rows[-1]["measures"]]
        return {
            "name": folder.resolve().name,
            "sentence": sentence(rows),
            "columns": COLUMNS,
            "measure_columns": MEASURE_COLUMNS,
            "labels": [_labels(row) for row in rows[1:]],
            "measures": [(MEASURES[name], [_measure(row, name) for row in rows]) for name in names],
            "judge": str(found["judge"]),
        }
    except (LookupError, TypeError) as error:
        raise StoreError(f"{folder / 'rounds.json'}: is no comparison of rounds ({error}); run 'heedful run' again") from None


def sentence(rows: list[dict[str, Any]]) -> str:
    """What the last round did to the one before, by the measure that is to be believed."""
    last = rows[-1]
    measure = _believed(last)
    found = last["measures"][measure]
    if len(rows) < 3 or "difference" not in found:
        return "One round has been run, so there is none to compare it with."
    change = found["difference"]
    if change["low"] is None:
        return "There is one held-out prompt only, so nothing can be said of a difference."
    words = {
        "improved": f"{last['name'].capitalize()} is better than the round before",
        "worse": f"{last['name'].capitalize()} is worse than the round before",
    }.get(found["verdict"], f"No difference between {last['name']} and the round before can be told from chance")
    return f"{words}: {MEASURES[measure].lower()} {signed(change['estimate'])}{bounds(change, sign=True)}."


def table(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """For the terminal: name, labels so far, reward, rubric, wins over the round before by the believed measure."""
    shown, labels = [], 0
    for row in rows:
        labels += row.get("num_judgements", 0)
        measures = row["measures"]
        means = [number(measures[name]["mean"]["estimate"]) if name in measures else "" for name in ("reward", "rubric")]
        wins = measures[_believed(row)].get("wins")
        shown.append((row["name"], str(labels), *means, percent(wins) if wins else ""))
    return shown


def _believed(row: dict[str, Any]) -> str:
    """Gold where there is one, the rubric where simulated labelers went by it, else the reward."""
    named = str(row.get("believed", "reward"))
    return named if named in row["measures"] else "reward"


def _labels(row: dict[str, Any]) -> tuple[str, ...]:
    alpha, accuracy = row["krippendorff_alpha"], row["reward_accuracy"]
    return (
        row["name"],
        str(row["num_judgements"]),
        str(row["num_pairs"]),
        "-" if alpha is None else f"{alpha:.2f}",
        percent(accuracy) if accuracy else "-",
        number(row["kl"]["estimate"]),
    )


def _measure(row: dict[str, Any], name: str) -> tuple[str, ...]:
    found = row["measures"][name]
    mean = f"{number(found['mean']['estimate'])}{bounds(found['mean'])}"
    if "difference" not in found:
        return row["name"], mean, "", "", ""
    change = found["difference"]
    return (
        row["name"],
        mean,
        f"{signed(change['estimate'])}{bounds(change, sign=True)}",
        found["verdict"],
        percent(found["wins"]),
    )


def _markdown(shown: dict[str, Any]) -> str:
    lines = [f"# Rounds of {_cell(shown['name'])}", "", shown["sentence"], "", *_table(shown["columns"], shown["labels"])]
    for heading, rows in shown["measures"]:
        lines += ["", f"## {heading}", "", *_table(MEASURE_COLUMNS, rows)]
    return "\n".join([*lines, "", f"The reward is that of {shown['judge']}, on the answers of all rounds.", ""])


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in lines]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
