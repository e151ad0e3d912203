"""Tools: what they compute, and that what a model writes can neither run away with them nor get out."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.environments import tool_worker
from heedful.environments.tool import WORKER, Tool
from heedful.errors import HeedfulError

SNAIL = """
import json, sys, time
sys.stdin.readline()
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    time.sleep(json.loads(line) == "sleep" and 60 or 0)
    if json.loads(line) == "die":
        sys.exit(1)
    if json.loads(line) == "chatter":
        print("x" * 200_000)
    print(json.dumps({"output": "here"}), flush=True)
"""


@pytest.fixture(scope="module")
def calculator() -> Iterator[Tool]:
    tool = Tool("calculator", timeout_s=20, memory_mb=256)
    yield tool
    tool.close()


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ("37 * 12", "444"),
        ("2 ** 10 - 1", "1023"),
        ("7 / 2", "3.5"),
        ("6 / 2", "3"),
        ("-7 // 2", "-4"),
        ("1,234 * 2", "2468"),
        ("max(3,4) + abs(-2)", "6"),
        ("sqrt(2)", "1.4142135623731"),
        ("12345678.91 + 100000000", "112345678.91"),
        ("0.1 + 0.2", "0.3"),
        ("2^5", "32"),
        ("(1 + 2) * 3 % 5", "4"),
    ],
)
def test_the_calculator_computes(calculator: Tool, asked: str, value: str) -> None:
    assert calculator(asked) == value


@pytest.mark.parametrize(
    "asked",
    [
        "__import__('os').system('id')",
        "().__class__.__bases__",
        "open('/etc/passwd').read()",
        "(lambda: 1)()",
        "[1 for _ in [1]]",
        "x",
        "'a' * 10",
        "9 ** 9 ** 9",
        "2 ** 100000",
        "10.0 ** 400",
        "(-8) ** 0.5",
        "1 / 0",
        "1 +",
        "",
        "1\x00",
        "(" * 300 + "1" + ")" * 300,
        "-" * 300 + "1",
        "True + True",
        "abs(x=1)",
        "1 if 1 else 2",
        "round(1, -(10 ** 9))",
        "round(1, 10 ** 30)",
    ],
)
def test_the_calculator_refuses_everything_else(calculator: Tool, asked: str) -> None:
    assert calculator(asked).startswith("error: ")
    assert calculator("1 + 1") == "2", "it goes on"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"[-+*/%().0-9a-z ]{0,40}", fullmatch=True))
def test_any_text_has_a_value_or_an_error_that_can_be_read(text: str) -> None:
    with suppress(tool_worker.ToolError):
        assert tool_worker.calculate(text)


def test_the_search_finds_the_passage_and_reads_words_as_words() -> None:
    passages = ["The capital of France is Paris.", "Berlin lies on the Spree.", 'NEAR( "OR" * text']
    search = Tool("search", timeout_s=20, memory_mb=256, about={"passages": passages, "count": 1})
    assert search("capital of France") == passages[0]
    assert search("rivers: spree") == passages[1], "the words that are nowhere do not matter"
    for hostile in ('") OR text:*', "NEAR(a b)", "a AND", "'; drop table passages; --", "*"):
        assert "syntax" not in search(hostile)
    assert search("Berlin") == passages[1], "and the passages are still there"
    assert search("zebra") == "error: nothing was found"
    assert search("!!!") == "error: name words to search for"
    two = Tool("search", timeout_s=20, memory_mb=256, about={"passages": passages, "count": 2})
    assert two("Paris Berlin").split("\n") in (passages[:2], passages[1::-1])


def in_confinement(code: str) -> str:
    """What a confined process says of an attempt."""
    program = (
        f"import runpy, socket, os\nworker = runpy.run_path({str(WORKER)!r})\nworker['confine'](256)\n"
        f"try:\n    {code}\n    print('got out')\nexcept BaseException as error:\n    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or f"ended with {done.returncode}"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("socket.create_connection(('127.0.0.1', 9))", "PermissionError"),
        ("socket.socket()", "PermissionError"),
        ("open('/etc/hostname')", "PermissionError"),
        ("os.system('true')", "PermissionError"),
        ("os.fork()", "PermissionError"),
        ("os.listdir('/')", "PermissionError"),
        ("import ctypes", "PermissionError"),
        ("bytearray(400 << 20)", "MemoryError"),
        ("bytearray(1 << 20)", "got out"),
    ],
)
def test_a_tools_process_has_neither_network_nor_files_nor_children_nor_much_memory(code: str, said: str) -> None:
    assert in_confinement(code) == said


def test_without_the_audit_hook_the_system_itself_gives_no_socket() -> None:
    """The hook is Python's; the limit on descriptors is the system's."""
    assert in_confinement("__import__('_socket').socket()") in ("PermissionError", "OSError")
    limited = "import resource, socket\nresource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\nsocket.socket()"
    done = subprocess.run([sys.executable, "-I", "-c", limited], capture_output=True, text=True, timeout=60, check=False)
    assert "Too many open files" in done.stderr


def test_a_call_that_takes_too_long_is_ended_and_the_next_one_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "snail.py"
    worker.write_text(SNAIL)
    monkeypatch.setattr("heedful.environments.tool.WORKER", worker)
    tool = Tool("snail", timeout_s=1.0, memory_mb=256)
    assert tool("go") == "here"
    first = tool._process
    began = time.monotonic()
    assert tool("sleep") == "error: this took longer than 1 s"
    assert time.monotonic() - began < 20
    assert first is not None
    assert first.poll() is not None, "the process is gone"
    tool.timeout_s = 20.0
    assert tool("go") == "here"
    assert tool("die") == "error: the tool broke off"
    assert tool("chatter").startswith("error: ")
    assert tool("go") == "here"
    tool.close()


def test_a_tool_that_cannot_start_says_what_to_change() -> None:
    with pytest.raises(HeedfulError, match=r"environment\.memory_mb"):
        Tool("search", timeout_s=1, memory_mb=256, about={"passages": None, "count": 1})("x")
