"""Members as actors of a Ray cluster: Ray finds a place for each, starts it there, and says when its machine is gone.

Member 0 stays where the command was given, for it keeps the run directory and speaks to the user; the others are actors, each
of which holds one process of the same command, as a ProcessRunner would start it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from heedful.config import ScaleSection
from heedful.errors import ConfigError
from heedful.scale.members import Member
from heedful.scale.room import visible_gpus
from heedful.scale.runners import STOP_S, ProcessRunner, free_port

LONGEST_CALL_S = 30.0  # any call of an actor only starts, asks after, or ends a process


class Holder:
    """What an actor is: one process, started where the actor is."""

    def __init__(self, log: str) -> None:
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        told = os.environ | environment
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=told, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def parent(self) -> int:
        """The process that the other one is not to outlive."""
        return os.getpid()

    def exit_code(self) -> int | None:
        return self.process.poll() if self.process else None

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=STOP_S)
            self.process.kill()


class RayRunner:
    """A Runner over a Ray cluster, or over a Ray started on this machine where no address is given."""

    def __init__(self, command: Sequence[str], logs: Path, section: ScaleSection) -> None:
        self.command, self.logs, self.section = list(command), logs, section
        self.first = ProcessRunner(command, logs)
        self.actors: list[Any] = []
        self.pending: list[Any] = []
        self.codes: list[int | None] = []
        here: dict[str, Any] = (
            {"ignore_reinit_error": True} if section.address else {"num_cpus": section.num_workers, "include_dashboard": False}
        )
        # Ray tells of lost workers on standard output, which is member 0's alone; that one has it from the process itself.
        sys.stdout = sys.stderr
        ray.init(address=section.address or None, logging_level="ERROR", log_to_driver=False, **here)
        self.kind = "GPU" if visible_gpus() else "CPU"
        self._require_room()

    def _require_room(self) -> None:
        """Raises ConfigError naming what the cluster lacks. Member 0 needs its share of this machine besides."""
        wanted = self.section.num_workers
        have = int(ray.cluster_resources().get(self.kind, 0))
        if wanted > have:
            raise ConfigError(
                f"scale.num_trainers = {self.section.num_trainers} and scale.num_rollout_workers = "
                f"{self.section.num_rollout_workers} ask for {wanted} workers, each with one {self.kind}, and the Ray cluster "
                f"has {have}: {wanted - have} are missing. Lower the numbers, or add nodes"
            )

    def start(self, members: Sequence[Member]) -> None:
        address = f"{ray.util.get_node_ip_address()}:{free_port()}"
        one = {"num_gpus": 1} if self.kind == "GPU" else {"num_cpus": 1}
        self.actors, self.pending, self.codes = [], [], []
        for member in members[1:]:
            actor = ray.remote(**one, max_restarts=0)(Holder).remote(str(self.logs / f"worker-{member.rank}.log"))
            told = replace(member, address=address, parent=self._ask(actor.parent.remote()))
            environment = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
            self._ask(actor.start.remote(self.command, environment | told.as_environment()))
            self.actors.append(actor)
            self.pending.append(actor.exit_code.remote())
            self.codes.append(None)
        self.first.start([replace(members[0], address=address)])

    def exits(self) -> list[int | None]:
        for i, actor in enumerate(self.actors):
            if self.codes[i] is not None:
                continue
            try:
                ready, _ = ray.wait([self.pending[i]], timeout=0)
                if ready:
                    self.codes[i] = ray.get(self.pending[i], timeout=LONGEST_CALL_S)
                    self.pending[i] = actor.exit_code.remote()
            except ray.exceptions.RayError:  # the actor, or the machine that it was on
                self.codes[i] = -int(signal.SIGKILL)
        return [*self.first.exits(), *self.codes]

    def stop(self) -> None:
        self.first.stop()
        for actor in self.actors:
            with suppress(ray.exceptions.RayError):
                self._ask(actor.stop.remote())
            ray.kill(actor)

    def _ask(self, call: Any) -> Any:
        return ray.get(call, timeout=LONGEST_CALL_S)
