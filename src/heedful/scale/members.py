"""One member of a team of processes: how it is told who it is, and how it meets the others."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from heedful.errors import HeedfulError
from heedful.team import BrokenPassError, InParts, LostWorkerError

VARIABLE = "HEEDFUL_WORKER"
WATCH_S = 0.5
KINDS = 1 << 20  # of passes through one thing that is held in parts
MEET_S = 300.0  # at least, to meet at the start: before it each loads its libraries and, on a new machine, fetches a model


@dataclass(frozen=True)
class Member:
    """What one process must know. attempt: how often the team was started before. address: HOST:PORT where member 0 listens.
    fsdp: as of a Team.

    places: a folder in which each leaves word of what it does; "" for none. scratch: the run directory of a member that is not
    the first. parent: the process that started it, whose end it does not outlive; 0 for none.
    """

    rank: int
    size: int
    num_trainers: int
    address: str
    deadline_s: float
    attempt: int = 0
    places: str = ""
    scratch: str = ""
    parent: int = 0
    fsdp: bool = False

    def as_environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}


def this_member(environment: Mapping[str, str] = os.environ) -> Member | None:
    """Who this process is in a team; None where it was started by a user."""
    told = environment.get(VARIABLE)
    return Member(**json.loads(told)) if told else None


def read_places(folder: Path) -> dict[int, str]:
    """What each member said last, by rank, and how long ago."""
    found = {}
    for file in sorted(folder.glob("*.place")):
        with suppress(OSError, ValueError):
            said = json.loads(file.read_text(encoding="utf-8"))
            found[int(file.stem)] = f"{said['doing']} ({time.time() - said['time']:.0f} s ago)"
    return found


def die_with(parent: int) -> None:
    """This process ends soon after the one that started it, so that no orphan holds a run directory."""
    if not parent:
        return
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()


class ProcessTeam:
    """A team over torch.distributed: gloo on processors, NCCL for what lies on a GPU. No wait is longer than deadline_s."""

    def __init__(self, member: Member) -> None:
        import torch
        import torch.distributed as dist

        self.rank, self.size, self.num_trainers = member.rank, member.size, member.num_trainers
        self.fsdp = member.fsdp and member.size > 1
        self.held: list[weakref.ref[InParts]] = []
        self.member = member
        self.step = ""
        self._dist: Any = dist
        self.says("meeting the others")
        host, _, port = member.address.rpartition(":")
        deadline, meeting = (timedelta(seconds=s) for s in (member.deadline_s, max(MEET_S, member.deadline_s)))
        try:
            store = self._dist.TCPStore(host, int(port), member.size, is_master=member.rank == 0, timeout=meeting)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=member.rank, world_size=member.size, timeout=deadline)
        except (RuntimeError, ValueError) as error:
            raise self._lost("meeting the others", error) from error

    def exchange(self, mine: Any, at: str) -> list[Any]:
        self.says(f"{at}, waiting for the others")
        rows: list[Any] = [None] * self.size
        self._follow()
        try:
            self._dist.all_gather_object(rows, mine)
        except RuntimeError as error:
            raise self._lost(at, error) from error
        self.says(f"after {at}")
        return rows

    def take_in(self, one: InParts) -> int:
        self.held.append(weakref.ref(one))
        return len(self.held) - 1

    def turn(self, number: int, kind: int) -> None:
        self._follow(1 + number * KINDS + kind)

    def _follow(self, mine: int = 0) -> None:
        """Makes the others' passes along with them, one after the other, until the next is `mine`; 0: until nobody wants one.

        Which is next all agree on: the largest number that anybody wants.
        """
        if not self.held:
            return
        while (wanted := self._next(mine)) != mine:
            number, kind = divmod(wanted - 1, KINDS)
            one = self.held[number]()
            assert one is not None, f"worker {self.rank} has dropped what another one reads"
            one.read_nothing(kind)

    def _next(self, mine: int) -> int:
        import torch

        wanted = torch.tensor([mine])
        try:
            self._dist.all_reduce(wanted, op=self._dist.ReduceOp.MAX)
        except RuntimeError as error:
            raise self._lost("a pass through the base", error) from error
        return int(wanted)

    def lost(self, at: str, error: Exception) -> HeedfulError:
        # Gloo raises nothing of its own kind, but names its source file.
        gone = isinstance(error, self._dist.DistError) or re.search("gloo|nccl", str(error), re.IGNORECASE)
        if gone:
            return self._lost(at, error)
        return BrokenPassError(f"worker {self.rank}, in {at}: {type(error).__name__}: {error}")

    def add(self, flat: Any, at: str) -> None:
        self.says(f"{at}, waiting for the others")
        self._follow()
        try:
            self._dist.all_reduce(flat)
        except RuntimeError as error:
            raise self._lost(at, error) from error
        self.says(f"after {at}")

    def says(self, doing: str) -> None:
        if self.member.places:
            said = json.dumps({"doing": f"{self.step}{doing}", "time": time.time()})
            with suppress(OSError):  # a full disk ends the run where a result is lost, and this is none
                (Path(self.member.places) / f"{self.rank}.place").write_text(said, encoding="utf-8")

    def begins(self, step: int) -> None:
        self.step = f"step {step}: "
        self.says("begun")

    def close(self) -> None:
        with suppress(RuntimeError):
            self._dist.destroy_process_group()

    def _lost(self, at: str, error: Exception) -> LostWorkerError:
        places = read_places(Path(self.member.places)) if self.member.places else {}
        others = "; ".join(f"worker {rank}: {said}" for rank, said in places.items() if rank != self.rank)
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = re.sub(r"^\[[^]]*\] ", "", said).split(" This is typically")[0][:200]  # no place in the library's source
        return LostWorkerError(
            f"worker {self.rank} waited for the others at '{self.step}{at}', and one is gone or did not come within "
            f"{self.member.deadline_s:g} s ({reason}). What was heard last: {others or 'nothing'}"
        )
