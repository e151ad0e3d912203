"""Builds the peers' environments, once: torch first and alone, then what benchmarks/peers-*.txt pins.

    python benchmarks/peers.py [--anew]

They lie in benchmarks/.peers/, which git ignores. `make bench` calls this by itself.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE / ".peers"
TORCH = "torch==2.13.0"


def pins(name: str) -> Path:
    return HERE / f"peers-{name}.txt"


def python_of(name: str) -> Path:
    return FOLDER / name / "bin" / "python"


def ready(name: str) -> bool:
    """Whether the environment was built to its end from these very pins."""
    mark = FOLDER / name / "built-from.txt"
    return mark.exists() and mark.read_text() == pins(name).read_text()


def build(name: str, *, anew: bool = False) -> Path:
    """The python of a peer's environment, which is built when it is not there or its pins have changed."""
    if ready(name) and not anew:
        return python_of(name)
    folder = FOLDER / name
    print(f"building the peer's environment {folder} (some minutes, once) ...", file=sys.stderr, flush=True)
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(python_of(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = [[sys.executable, "-m", "venv", str(folder)], [*pip, TORCH], [*pip, "-r", str(pins(name))]]
    for command in commands:
        if subprocess.run(command, check=False).returncode:
            sys.exit(
                f"{folder}: '{' '.join(command)}' failed, see pip's message above. Check the network and the package index, "
                "then run the same command again"
            )
    (folder / "built-from.txt").write_text(pins(name).read_text())
    return python_of(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anew", action="store_true", help="build them even when they are there")
    arguments = parser.parse_args()
    for path in sorted(HERE.glob("peers-*.txt")):
        name = path.stem.removeprefix("peers-")
        print(build(name, anew=arguments.anew))


if __name__ == "__main__":
    main()
