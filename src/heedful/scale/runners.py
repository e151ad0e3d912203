"""Who starts the members of a team and sees them end: processes of this machine, or actors of a Ray cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Protocol

from heedful.scale.members import Member
from heedful.scale.room import num_cores, visible_gpus

STOP_S = 3.0  # between the request to end and the end


class Runner(Protocol):
    """A place where members run. A member is the very command that the user gave, told by its environment who it is."""

    def start(self, members: Sequence[Member]) -> None:
        """Starts them, with an address of member 0 put in."""

    def exits(self) -> list[int | None]:
        """The exit code of each, in order of rank: None while it runs, minus the number of the signal that ended it."""

    def stop(self) -> None:
        """Ends those that still run, at the latest after a few seconds."""


class ProcessRunner:
    """Members as processes of this machine, each with its share of the cores, or a GPU.

    The first speaks to the user: it has this process's standard output and error. What the others say goes to files in `logs`.
    """

    def __init__(self, command: Sequence[str], logs: Path) -> None:
        self.command = list(command)
        self.logs = logs
        self.processes: list[subprocess.Popen[bytes]] = []
        self.gpus: list[str] = []  # of these alone, where somebody else shares the GPUs out

    def start(self, members: Sequence[Member]) -> None:
        address = members[0].address or f"127.0.0.1:{free_port()}"
        cores, gpus = max(1, num_cores() // len(members)), self.gpus or visible_gpus()
        self.processes = []
        for member in members:
            told = replace(member, address=address, parent=os.getpid())
            # Equal hashes of texts: what is gone through in the order of a set is gone through alike everywhere.
            environment = {"OMP_NUM_THREADS": str(cores), "PYTHONHASHSEED": "0"} | os.environ | told.as_environment()
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[member.rank % len(gpus)]
            log = None if member.rank == 0 else (self.logs / f"worker-{member.rank}.log").open("ab")
            self.processes.append(self._begin(environment, log))

    def _begin(self, environment: dict[str, str], log: IO[bytes] | None) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(self.command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        finally:
            if log is not None:
                log.close()

    def exits(self) -> list[int | None]:
        return [process.poll() for process in self.processes]

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        process.send_signal(number)
            for process in self.processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=STOP_S)


def this_command() -> list[str]:
    """What starts this very process again."""
    return [sys.executable, *sys.orig_argv[1:]]


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
