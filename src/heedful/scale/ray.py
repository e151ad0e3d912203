"""Members as actors of a Ray cluster: Ray finds a place for each, starts it there, and says when its machine is gone.

Member 0 stays where the command was given, for it keeps the run directory and speaks to the user; the others are actors, each
of which holds one process of the same command, as a ProcessRunner would start it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heedful.config import ScaleSection
from heedful.errors import ConfigError, HeedfulError
from heedful.scale.members import Member
from heedful.scale.room import visible_gpus
from heedful.scale.runners import STOP_S, ProcessRunner, free_port

LONGEST_CALL_S = 30.0  # any call of an actor only starts, asks after, or ends a process
ANSWER_S = 10.0  # in which a cluster's address is to accept a connection
SILENT_S = 10.0  # without places for all; then it is told what is waited for


class Place(NamedTuple):
    """Where an actor is. process: the one that what it holds is not to outlive. gpus: that Ray gave it. host: a name."""

    process: int
    gpus: list[str]
    host: str


class Holder:
    """What an actor is: one process, started where the actor is. That of member 0 only holds its place."""

    def __init__(self, log: str) -> None:
        self.log, self.elsewhere = Path(log), False
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        """Nothing comes back, which as an exit code says that the process runs."""
        told = os.environ | environment
        if not self.log.parent.is_dir():  # another machine, which has no such run directory
            self.elsewhere = True
            self.log = Path(tempfile.mkdtemp(prefix="heedful-")) / self.log.name
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=told, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def place(self) -> Place:
        return Place(os.getpid(), [str(gpu) for gpu in ray.get_gpu_ids()], socket.gethostname())

    def ended(self) -> tuple[int, str] | None:
        """The exit code, and what is to be written where the command was given: "" where the log is there already."""
        code = self.process.poll() if self.process else None
        if code is None or not self.elsewhere:
            return None if code is None else (code, "")
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "it said nothing")
        return code, f"on {socket.gethostname()}, where the rest of it is in {self.log}:\n{last}\n"

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=STOP_S)
            self.process.kill()


class RayRunner:
    """A Runner over a Ray cluster, or over a Ray started on this machine where no address is given.

    Raises ConfigError when no cluster answers there, or one that lacks what the settings ask for.
    """

    def __init__(self, command: Sequence[str], logs: Path, section: ScaleSection) -> None:
        self.command, self.logs, self.section = list(command), logs, section
        self.first = ProcessRunner(command, logs)
        self.actors: list[Any] = []
        self.hosts: list[str] = []
        self.pending: list[Any] = []
        self.codes: list[int | None] = []
        self.seat: Any = None
        # Ray tells of lost workers on standard output, which is member 0's alone; that one has it from the process itself.
        sys.stdout = sys.stderr
        _connect(section)
        self.kind = "GPU" if visible_gpus() else "CPU"
        self._require_room()

    def _have(self, found: dict[str, float]) -> int:
        return int(found.get(self.kind, 0))

    def _require_room(self) -> None:
        """Raises ConfigError naming what the cluster lacks. Member 0 needs its share of this machine besides."""
        seated = self._seated()
        wanted = self.section.num_workers if seated else self.section.num_workers - 1
        besides = "" if seated else " beside that of the first, which is none of the cluster's"
        have = self._have(ray.cluster_resources())
        if wanted > have:
            raise ConfigError(
                f"scale.num_trainers = {self.section.num_trainers} and scale.num_rollout_workers = "
                f"{self.section.num_rollout_workers} ask for {self.section.num_workers} workers, each with one "
                f"{self.kind}{besides}, and the Ray cluster has {have}: {wanted - have} are missing. Lower the numbers, "
                "or add nodes"
            )

    def start(self, members: Sequence[Member]) -> None:
        address = f"{ray.util.get_node_ip_address()}:{free_port()}"
        places = self._places([member.rank for member in members[1:]])
        self.pending, self.codes, self.hosts = [], [], [place.host for place in places[1:]]
        for member, actor, place in zip(members[1:], self.actors, places[1:], strict=True):
            told = replace(member, address=address, parent=place.process)
            environment = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
            # One that is lost meanwhile, or cannot start, is seen by exits(), as one that is lost later.
            self.pending.append(actor.start.remote(self.command, environment | told.as_environment()))
            self.codes.append(None)
        self.first.gpus = places[0].gpus
        self.first.start([replace(members[0], address=address)])

    def _places(self, ranks: Sequence[int]) -> list[Place]:
        """What each actor says of its place, member 0's first, once Ray found one for all.

        A node that is gone may come back, or another in its stead: that is waited for. Raises HeedfulError after node_wait_s.
        """
        if self.seat is None and self._seated():
            self.seat = self._actor(0)
        self.actors = [self._actor(rank) for rank in ranks]
        asked = {rank: actor.place.remote() for rank, actor in zip(ranks, self.actors, strict=True)}
        if self.seat is not None:
            asked[0] = self.seat.place.remote()
        found = {} if 0 in asked else {0: Place(0, [], "")}
        begun, told, last = time.monotonic(), False, ""
        while asked:
            ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=1.0)
            for rank in [rank for rank, call in asked.items() if call in ready]:
                try:
                    found[rank] = ray.get(asked.pop(rank), timeout=LONGEST_CALL_S)
                except ray.exceptions.RayError as error:  # its node was lost while it began: once more, on another
                    last = f" (the last try ended with {_first_line(error)})"
                    if isinstance(error, ray.exceptions.RayTaskError) or getattr(error, "actor_init_failed", False):
                        raise HeedfulError(
                            f"worker {rank} cannot begin on the machine that Ray chose for it: {_first_line(error)}. Each "
                            "machine needs this Python with heedful and its extra 'ray'. Mend it there, then run the same "
                            "command again"
                        ) from error
                    actor = self._actor(rank)
                    if rank:
                        self.actors[ranks.index(rank)] = actor
                    else:
                        self.seat = actor
                    asked[rank] = actor.place.remote()
                    time.sleep(1.0)
            waited = time.monotonic() - begun
            if asked and waited > self.section.node_wait_s:
                raise HeedfulError(
                    f"{self._missing(sorted(asked))} within scale.node_wait_s = {self.section.node_wait_s:g} s{last}. Nothing "
                    "that was learned is lost: add a node, or lower the numbers of workers, then run the same command again"
                )
            if asked and waited > min(SILENT_S, self.section.node_wait_s / 2) and not told:
                told = True
                print(
                    f"{self._missing(sorted(asked))} yet; waiting up to {self.section.node_wait_s:g} s for a node to join",
                    file=sys.stderr,
                )
        if told:
            print("the Ray cluster has a place for each worker again", file=sys.stderr)
        return [found[rank] for rank in sorted(found)]

    def _missing(self, ranks: Sequence[int]) -> str:
        wanted, have = self.section.num_workers, self._have(ray.cluster_resources())
        free = self._have(ray.available_resources())
        who = f"worker{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
        has = f"the Ray cluster has {have}, {free} of them free"
        return f"{wanted} workers need one {self.kind} each; {has}, and had no place for {who}"

    def _seated(self) -> bool:
        """Whether this machine's share is counted by Ray: then member 0 holds its part of it, so that no other gets that."""
        if self.section.address.startswith("ray://"):
            return False  # a machine outside of the cluster
        here = ray.get_runtime_context().get_node_id()
        return any(node["NodeID"] == here and node["Resources"].get(self.kind, 0) >= 1 for node in ray.nodes())

    def _actor(self, rank: int) -> Any:
        options: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if self.kind == "GPU" else {"num_cpus": 1}
        if rank == 0:
            here = ray.get_runtime_context().get_node_id()
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id=here, soft=False)
        return ray.remote(**options, max_restarts=0)(Holder).remote(str(self.logs / f"worker-{rank}.log"))

    def exits(self) -> list[int | None]:
        for i, actor in enumerate(self.actors):
            if self.codes[i] is not None:
                continue
            try:
                ready, _ = ray.wait([self.pending[i]], timeout=0)
                if ready:
                    found = ray.get(self.pending[i], timeout=LONGEST_CALL_S)
                    self.pending[i] = actor.ended.remote()
                    if found:
                        self._write_down(i + 1, found[1])
                        self.codes[i] = found[0]
            except ray.exceptions.RayTaskError as error:
                raise HeedfulError(
                    f"worker {i + 1} could not be started on {self.hosts[i]}: {_first_line(error)}. Each machine needs this "
                    "Python and heedful at the same paths, and room for temporary files. Mend it there, then run the same "
                    "command again"
                ) from error
            except ray.exceptions.RayError:  # the actor, or the machine that it was on
                self.codes[i] = -int(signal.SIGKILL)
        return [*self.first.exits(), *self.codes]

    def _write_down(self, rank: int, words: str) -> None:
        if words:
            with suppress(OSError), open(self.logs / f"worker-{rank}.log", "a", encoding="utf-8") as log:
                log.write(words)

    def stop(self) -> None:
        calls = [actor.stop.remote() for actor in self.actors]
        self.first.stop()
        if calls:  # those of a lost machine are not waited for; a process ends with its actor at the latest
            ray.wait(calls, num_returns=len(calls), timeout=2 * STOP_S)
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []


def _first_line(error: Exception) -> str:
    """What an actor raised, without the way there."""
    cause = getattr(error, "cause", None) or error
    said = str(cause).strip().splitlines() or ["nothing more is known"]
    if getattr(error, "actor_init_failed", False) or "Traceback" in str(cause):
        return said[-1].strip()[:300]
    return f"{type(cause).__name__}: {said[0][:300]}"


def _connect(section: ScaleSection) -> None:
    """Raises ConfigError when nobody answers: Ray itself would ask for two minutes, and then end the process."""
    host, _, port = section.address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
        except (OSError, OverflowError) as error:
            raise _unanswered(section, error) from None
    here: dict[str, Any] = (
        {"ignore_reinit_error": True} if section.address else {"num_cpus": section.num_workers, "include_dashboard": False}
    )
    try:
        # "local": without an address Ray takes that of RAY_ADDRESS, or the last cluster of this machine.
        ray.init(address=section.address or "local", logging_level="ERROR", log_to_driver=False, **here)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _unanswered(section, error) from error


def _unanswered(section: ScaleSection, error: Exception) -> ConfigError:
    said = " ".join(str(error).split())[:300]
    if not section.address:
        return ConfigError(f"Ray could not be started on this machine ({said})")
    if not isinstance(error, OSError | ValueError | OverflowError):
        return ConfigError(
            f"scale.address = {section.address!r}: this process cannot join the Ray cluster ({said}). Use the same Python and "
            "the same Ray on all its machines"
        )
    return ConfigError(
        f"scale.address = {section.address!r}: no Ray cluster answers there ({said}). Start one (ray start --head), or give "
        "the address that it told"
    )
