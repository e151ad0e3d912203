"""The method's page names every option of a fit and every figure of a result, with the defaults that the code has."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer
from simulated_persons import world

from heedful.cli.persons import app
from heedful.persons.asking import Question
from heedful.persons.choosing import Choice
from heedful.persons.fitting import Settings
from heedful.persons.measures import by_person

PAGE = (Path(__file__).parents[2] / "docs" / "methods" / "personalisation.md").read_text(encoding="utf-8")


def under(heading: str) -> str:
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def test_each_setting_has_its_default() -> None:
    command: Any = typer.main.get_command(app).commands["fit"]  # type: ignore[attr-defined]
    options = {param.opts[0].removeprefix("--"): param.default for param in command.params}
    rows = dict(re.findall(r"^\| `([\w-]+)` \| `([^`]+)` \|", under("## Settings"), re.MULTILINE))
    numbers = {name: default for name, default in options.items() if isinstance(default, float) or name == "num-heads"}
    assert {name: float(default) for name, default in rows.items()} == {k: float(v) for k, v in numbers.items()}
    ours = {field.name.replace("_", "-"): field.default for field in fields(Settings)}
    assert {name: ours[name] for name in rows if name in ours} == {name: options[name] for name in rows if name in ours}


def test_each_figure_is_explained() -> None:
    found = world(2, 6)
    labels = found.labels(8, pairs=False, seed=0)
    measured = set(by_person(labels, labels.value_N * 0.5 + 0.2))
    assert set(re.findall(r"^\| `(\w+)` \|", under("### What `evaluate` measures"), re.MULTILINE)) == measured
    said = under("## What the result says")
    for name in (*Question._fields, *(field.name for field in fields(Choice))):
        assert f"`{name}`" in said or name == "prompt_id", name
