"""The process in which a tool runs: without files, network or children, with limited memory. Standard library only.

It is started as a script, apart from the package: the first line of its input is a JSON object that says which tool it is,
each further line one call, and it answers each with one line. The caller keeps the time.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
import sys
from collections.abc import Callable
from typing import Any

MAX_INPUT = 400  # characters
MAX_DEPTH = 40
MAX_BITS = 4096  # of a whole number


class ToolError(Exception):
    """What the caller did wrong, in words that the model may read."""


def confine(memory_mb: int) -> None:
    """From here on this process opens nothing, and no memory beyond the limit can be had.

    With no further descriptor allowed there is neither a file nor a socket; the audit hook says so before the system does.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))

    def refuse(event: str, _: object) -> None:
        if event == "open" or event.partition(".")[0] in ("socket", "subprocess", "os", "shutil", "ctypes", "import"):
            raise PermissionError(f"a tool must not do this: {event}")

    sys.addaudithook(refuse)


def rounded(value: Any, digits: int = 0) -> Any:
    """To so many places behind the point; of a thousand before it Python would first make 10 ** 1000."""
    if abs(digits) > 100:
        raise ToolError("the number is too large")
    return round(value, digits)


BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
UNARY: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "min": min, "max": max, "round": rounded, "sqrt": math.sqrt}


def calculate(text: str) -> str:
    """The value of an arithmetic expression: numbers, + - * / // % **, brackets, and a few functions. Nothing is executed."""
    text = text.strip().replace("^", "**").replace("×", "*")
    if not any(letter.isalpha() for letter in text):  # 1,234: a comma that separates no arguments
        text = text.replace(",", "")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ToolError("this is no arithmetic expression") from None
    try:
        return shown(value_of(tree.body, 0))
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except (OverflowError, ValueError, TypeError):
        raise ToolError("this has no value") from None


def value_of(node: ast.expr, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ToolError("the expression is too deep")
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return within(node.value)
    if isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
        return UNARY[type(node.op)](value_of(node.operand, depth + 1))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return within(power(value_of(node.left, depth + 1), value_of(node.right, depth + 1)))
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return within(BINARY[type(node.op)](value_of(node.left, depth + 1), value_of(node.right, depth + 1)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords:
        return within(FUNCTIONS[node.func.id](*(value_of(item, depth + 1) for item in node.args)))
    raise ToolError("only numbers, + - * / // % **, brackets, abs, min, max, round and sqrt are known")


def power(base: Any, exponent: Any) -> Any:
    """base ** exponent, refused before it is computed when it would be large."""
    if abs(exponent) > MAX_BITS or (isinstance(base, int) and base.bit_length() * abs(exponent) > MAX_BITS):
        raise ToolError("the number is too large")
    return base**exponent


def within(value: Any) -> Any:
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        raise ToolError("this has no value among the real numbers")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ToolError("the number is too large")
    return value


def shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.15g}" if isinstance(value, float) else str(value)


class Index:
    """Passages found by BM25, which SQLite's full-text index computes."""

    def __init__(self, passages: list[str], count: int) -> None:
        import sqlite3

        self.count = count
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("pragma temp_store = memory")
        self.connection.execute("create virtual table passages using fts5(text, tokenize='porter unicode61')")
        self.connection.executemany("insert into passages values (?)", [(text,) for text in passages])

    def __call__(self, text: str) -> str:
        words = re.findall(r"\w+", text)[:32]
        if not words:
            raise ToolError("name words to search for")
        # Each word in quotes: what was typed is never read as the index's own language.
        query = " OR ".join(f'"{word}"' for word in words)
        rows = self.connection.execute(
            "select text from passages where passages match ? order by bm25(passages), rowid limit ?", (query, self.count)
        ).fetchall()
        if not rows:
            raise ToolError("nothing was found")
        return "\n".join(" ".join(row[0].split()) for row in rows)


def tool_of(about: dict[str, Any]) -> Callable[[str], str]:
    if about["tool"] == "search":
        return Index(about["passages"], about["count"])
    return calculate


def main() -> None:
    about = json.loads(sys.stdin.readline())
    tool = tool_of(about)
    confine(about["memory_mb"])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        try:
            answer = {"output": tool(str(json.loads(line))[:MAX_INPUT])}
        except ToolError as error:
            answer = {"error": str(error)}
        except (MemoryError, RecursionError):
            answer = {"error": "this takes too much memory"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
