"""Tools that a policy may call: each runs in a process of its own (tool_worker.py), which is ended when it takes too long."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from heedful.errors import ConfigError, HeedfulError

WORKER = Path(__file__).with_name("tool_worker.py")
START_S = 20.0  # for a process to be there, on a busy machine
MAX_ANSWER = 1 << 18  # bytes of an answer's line: 20 passages, each of whose 600 characters may be 12 bytes of JSON


class Tool:
    """One tool by name. timeout_s: of a call. memory_mb: of its process. about: what the process is told besides.

    The answer to a call is text, an error included: "error: ..." is what the policy reads. One call at a time.
    """

    def __init__(self, name: str, *, timeout_s: float, memory_mb: int, about: dict[str, Any] | None = None) -> None:
        if sys.platform == "win32":
            raise ConfigError(
                "tools need a system that can limit a process (Linux or macOS); run heedful there, or without tools"
            )
        self.name, self.timeout_s = name, timeout_s
        self.about = {"tool": name, "memory_mb": memory_mb} | (about or {})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Any = None

    def __call__(self, text: str) -> str:
        with self._lock:
            process = self._running()
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps(text).encode() + b"\n")
                process.stdin.flush()
                found = _line(process, self.timeout_s)
            except OSError:
                found = None
            if found is None:
                gone = process.poll() is not None
                self.close()
                return "error: the tool broke off" if gone else f"error: this took longer than {self.timeout_s:g} s"
            return str(found["output"]) if "output" in found else f"error: {found.get('error', 'no answer')}"

    def close(self) -> None:
        """Ends the process; the next call starts another."""
        if self._end is not None:
            self._end()
        self._process, self._end = None, None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
        self._process, self._end = process, weakref.finalize(self, _stop, process)
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(self.about).encode() + b"\n")
            process.stdin.flush()
            ready = _line(process, START_S)
        except OSError:
            ready = None
        if ready is None:
            self.close()
            raise HeedfulError(
                f"the tool {self.name!r} cannot be started with {self.about['memory_mb']} MB; give it more "
                "(environment.memory_mb), or leave it out of environment.tools"
            )
        return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _line(process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, Any] | None:
    """The next line that the process writes, as an object; None when it takes too long, ends, or writes something else."""
    pipe = process.stdout
    assert pipe is not None
    deadline, read = time.monotonic() + timeout_s, b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not read.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or len(read) > MAX_ANSWER or not selector.select(left):
                return None
            part = pipe.read1(MAX_ANSWER)  # type: ignore[attr-defined]
            if not part:
                with suppress(subprocess.TimeoutExpired):  # its pipe is closed a moment before it is gone
                    process.wait(START_S / 20)
                return None
            read += part
    try:
        found = json.loads(read)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
