"""Links on the pages to the line of a definition: `python tests/support/line_links.py` checks them, --fix writes the lines.

Where the text of a link to a Python file names a function, class, constant, or one of a class (as `Class.method`, or alone
where no other class of the file has it), the link ends in #L and the line of its definition. Links whose text is a path or
prose go to the file.
"""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?P<text>[^\[\]]+)\]\((?P<path>[^)#\s:]+\.py)(?:#(?P<anchor>[^)\s]*))?\)")
NAME = re.compile(r"`(?!\w+\.py`)([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)`")
NAMES = re.compile(rf"{NAME.pattern}(?:,\s+{NAME.pattern})*")


class Revision(NamedTuple):
    """text: the page with every line right. stale: what that changed. unknown: what only a person can put right."""

    text: str
    stale: list[str]
    unknown: list[str]


def pages() -> list[Path]:
    """Everything that is written for readers."""
    return sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def definitions(source: str) -> dict[str, int]:
    """Lines of what a file defines: `name` at its top level, `Class.name` in its classes.

    Of a name that is defined more than once the first line counts, as of a property and its setter.
    """
    found: dict[str, int] = {}
    for node in ast.parse(source).body:
        for name in _defined(node):
            found.setdefault(name, node.lineno)
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                for member in _defined(inner):
                    found.setdefault(f"{name}.{member}", inner.lineno)
    return found


def _defined(node: ast.stmt) -> list[str]:
    """Names that one statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@cache
def _definitions_in(file: Path) -> dict[str, int]:
    return definitions(file.read_text(encoding="utf-8"))


def line_of(name: str, known: dict[str, int]) -> int:
    """Line of a name among definitions. Raises LookupError with what is wrong."""
    if name in known:
        return known[name]
    members = [key for key in known if key.endswith(f".{name}")]
    if len(members) > 1:
        raise LookupError(f"`{name}` is one of {' and '.join(members)}: say which")
    if not members:
        raise LookupError(f"`{name}` is not defined")
    return known[members[0]]


def revise(page: Path, text: str) -> Revision:
    """What the text of a page should be, links to several names cut into one for each."""
    stale: list[str] = []
    unknown: list[str] = []
    fences = [match.span() for match in FENCE.finditer(text)]

    def right(match: re.Match[str]) -> str:
        if any(start <= match.start() < end for start, end in fences):
            return match.group()
        where = f"line {text.count(chr(10), 0, match.start()) + 1}: {' '.join(match.group().split())}"
        file = (page.parent / match["path"]).resolve()
        if not NAMES.fullmatch(match["text"]):
            if match["anchor"] is None:
                return match.group()
            stale.append(f"{where}: no name that a line could be checked by")
            return f"[{match['text']}]({match['path']})"
        try:
            known = _definitions_in(file)
            better = NAME.sub(lambda name: f"[{name[0]}]({match['path']}#L{line_of(name[1], known)})", match["text"])
        except FileNotFoundError:
            unknown.append(f"{where}: no such file")
            return match.group()
        except LookupError as error:
            unknown.append(f"{where}: {error.args[0]}")
            return match.group()
        if better != match.group():
            stale.append(f"{where}: should be {' '.join(better.split())}")
        return better

    return Revision(LINK.sub(right, text), stale, unknown)


def main(arguments: list[str]) -> int:
    """Prints what is wrong, or with --fix what was changed; 1 when something is left to do."""
    if arguments not in ([], ["--fix"]):
        print("usage: line_links.py [--fix]", file=sys.stderr)
        return 2
    left = 0
    for page in pages():
        text = page.read_text(encoding="utf-8")
        revised = revise(page, text)
        if arguments and revised.text != text:
            page.write_text(revised.text, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: {len(revised.stale)} links changed")
        wrong = revised.unknown if arguments else revised.stale + revised.unknown
        left += len(wrong)
        for found in wrong:
            print(f"{page.relative_to(ROOT)}: {found}", file=sys.stderr)
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
