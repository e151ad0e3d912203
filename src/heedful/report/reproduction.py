"""What it takes to make a run again: commands, versions, settings, and the hashes of what it read."""

from __future__ import annotations

from typing import Any, NamedTuple

from heedful.report.contents import Contents
from heedful.report.plots import METHODS
from heedful.report.provenance import settings_of

ABSENT = "absent"


class Reproduction(NamedTuple):
    """commands: to be copied. started: as the run itself was. settings: heedful.toml. inputs: stage, file, SHA-256."""

    commands: str
    started: str
    settings: str
    inputs: list[tuple[str, str, str]]


def reproduction(contents: Contents) -> Reproduction:
    manifest, summary = contents.manifest, contents.summary
    path = contents.run / "heedful.toml"
    settings = path.read_text(encoding="utf-8") if path.exists() else ""
    inputs = [
        (stage, name.partition(" ")[2], str(digest))
        for stage, entry in manifest.get("stages", {}).items()
        for name, digest in entry.get("inputs", {}).items()
    ]
    lines = _commands(contents) if settings else []
    if lines:
        seed = settings_of(contents).get("seed", summary.get("seed"))
        revision = manifest.get("git_revision")
        versions = " ".join(f"{name}=={value.partition('+')[0]}" for name, value in _packages(manifest))
        head = [f"# seed {seed}" + (f", heedful at git revision {revision}" if revision else "")]
        if versions:
            head.append(f"# {_python(manifest)}pip install {versions}")
        lines = [*head, "# heedful.toml as below", *lines]
    return Reproduction("\n".join(lines), str(summary.get("command", "")), settings.strip(), inputs)


def _commands(contents: Contents) -> list[str]:
    """The settings hold all that the first command line overrode, so they alone make the run again."""
    if contents.summary:
        return ["heedful run heedful.toml --dir again", "heedful report again"]
    stages = contents.manifest.get("stages", {})
    return [f"heedful align {name} --config heedful.toml --output again" for name in METHODS if name in stages]


def _packages(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    found = manifest.get("versions", {})
    return [(name, str(value)) for name, value in found.items() if name != "python" and value != ABSENT]


def _python(manifest: dict[str, Any]) -> str:
    version = manifest.get("versions", {}).get("python")
    return f"python {version}; " if version else ""
