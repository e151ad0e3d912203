"""heedful's command line with faults in it, from a process that has loaded everything once: real workers, and real signals.

On stdin a line of JSON for each command: {arguments, faults, done, said}. Back come the process that looks after the workers,
and, when it has ended, its exit code. Faults are {rank, place, step} with a signal, with the size of the largest file that may
be written from there on, or with an error in the middle of a pass (breaks: its words; left: a file, touched by a worker that
comes to the end of its command all the same); each happens once: the folder `done` remembers.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from heedful.scale import launch
from heedful.scale.members import Member, this_member
from heedful.scale.runners import free_port
from heedful.team import BrokenPassError
from heedful.training import loop, policy_update, rollout

STEP = -1
TOLD: dict[str, Any] = {}
LEAVING: list[Path] = []


class ForkRunner:
    """As ProcessRunner, of copies of this process: loading torch anew would take most of a test's time."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.codes: dict[int, int | None] = {}

    def start(self, members: Sequence[Member]) -> None:
        address, self.codes = f"127.0.0.1:{free_port()}", {}
        for member in members:
            told = replace(member, address=address, parent=os.getpid())
            pid = os.fork()
            if pid == 0:
                os.environ.update(told.as_environment())
                run_command(self.logs / f"worker-{member.rank}.log" if member.rank else None)
            self.codes[pid] = None

    def exits(self) -> list[int | None]:
        for pid, code in self.codes.items():
            if code is None and (found := os.waitpid(pid, os.WNOHANG))[0]:
                self.codes[pid] = os.waitstatus_to_exitcode(found[1])
        return list(self.codes.values())

    def stop(self) -> None:
        for pid, code in self.codes.items():
            if code is None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        while None in self.exits():
            pass


def run_command(said: Path | None) -> None:
    """The command in this process, which ends with it. said: a file for what it says; None where it has one already."""
    from heedful.cli.app import main as command

    if said:
        with said.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    code = 1
    try:
        command()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0
    except BaseException:
        traceback.print_exc()
    for mark in LEAVING:
        mark.touch()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def strike(place: str) -> None:
    """Where this worker has come to a place that a fault is at, it strikes."""
    member = this_member()
    for number, fault in enumerate(TOLD["faults"]):
        mark = Path(TOLD["done"]) / str(number)
        rank = member.rank if member else 0  # a command of one worker
        if fault["place"] == place and fault["rank"] == rank and fault["step"] == STEP and not mark.exists():
            mark.touch()
            if "breaks" in fault:
                LEAVING.append(Path(fault["left"]))
                raise BrokenPassError(fault["breaks"])
            if "largest_file" in fault:
                resource.setrlimit(resource.RLIMIT_FSIZE, (fault["largest_file"], resource.RLIM_INFINITY))
            else:
                os.kill(os.getpid(), fault["signal"])


def before(owner: Any, name: str, place: str) -> None:
    """Puts the place in front of a function of a module or class."""
    original: Callable[..., Any] = getattr(owner, name)

    def then(*args: Any, **options: Any) -> Any:
        strike(place)
        return original(*args, **options)

    setattr(owner, name, then)


def main() -> None:
    # What takes long to load, and what that loads only when it is used.
    for name in ("heedful.pipeline", "peft", "transformers.models.llama.modeling_llama", "torch._dynamo"):
        importlib.import_module(name)

    original = loop._step

    def counted(method: Any, state: Any, checkpoint: Path) -> Any:
        global STEP
        STEP = state.step
        return original(method, state, checkpoint)

    loop._step = counted
    before(rollout, "score_responses", "rollout")  # the answers are sampled, and nobody has them yet
    before(policy_update.PolicyUpdate, "_part_loss", "backward")
    before(loop, "write_bytes", "checkpoint")
    launch._runner = lambda section, logs: ForkRunner(logs)  # type: ignore[assignment]
    print("ready", flush=True)
    for line in sys.stdin:
        TOLD.update(json.loads(line))
        sys.argv = ["heedful", *TOLD["arguments"]]
        pid = os.fork()
        if pid == 0:
            run_command(Path(TOLD["said"]))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
