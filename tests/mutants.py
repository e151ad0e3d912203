"""The report of `make mutants`: how many of mutmut's changes to functional/ some test catches, and which ones none does.

Fails below the bar, and for a survivor that mutants.toml does not explain.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MUTMUT = Path(sys.executable).with_name("mutmut")
BAR = 0.95

Change = tuple[str, str, str]  # function, what stands there, what the mutant has instead


def mutmut(*arguments: str) -> str:
    return subprocess.run([MUTMUT, *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def change(name: str) -> Change:
    """mutmut numbers the mutants of a function, and an edit moves the numbers: a mutant is known by its lines instead."""
    lines = [line for line in mutmut("show", name).splitlines() if not line.startswith(("---", "+++"))]
    was, now = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    module, _, mangled = name.rpartition(".x_")
    return f"{module.removeprefix('heedful.functional.')}.{mangled.partition('__mutmut_')[0]}", was, now


def main() -> int:
    mutmut("export-cicd-stats")
    counts = json.loads((ROOT / "mutants/mutmut-cicd-stats.json").read_text())
    total, caught = counts["total"], counts["killed"] + counts["timeout"]
    uncaught = [line.strip().split(": ") for line in mutmut("results").splitlines() if not line.endswith(": timeout")]
    survivors = [(change(name), status) for name, status in uncaught]
    groups = tomllib.loads((ROOT / "tests/mutants.toml").read_text())["equivalent"]
    explained: set[Change] = {tuple(entry) for group in groups for entry in group["changes"]}

    unexplained = [found for found in survivors if found[0] not in explained]
    for (function, was, now), status in unexplained:
        print(f"{function}: {status}\n  - {was}\n  + {now}")
    for function, was, now in explained - {found for found, _ in survivors}:
        print(f"{function}: in tests/mutants.toml, but does not survive (any more)\n  - {was}\n  + {now}")
    print(
        f"{total} mutants: {counts['killed']} killed, {counts['timeout']} timed out, {total - caught} survived, of which "
        f"tests/mutants.toml explains {len(survivors) - len(unexplained)}; {caught / total:.1%} caught, {BAR:.0%} is the bar"
    )
    if unexplained:
        print("write a test that each change above fails, or say in tests/mutants.toml why none can")
    return int(caught < BAR * total or bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
