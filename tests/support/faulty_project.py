"""A command that learns in a folder of its own, with workers that are lost: what is asked of faulty.py, and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import stuck
import torch
from safetensors.torch import load_file

from heedful.store import read_metrics

LIMIT_S = 60.0  # after which a run that makes no step is ended, see stuck.py
SUPPORT = Path(__file__).parent


class Project:
    """A configuration in a folder, and a process that runs a command with it. command: as `align ppo ...`."""

    def __init__(self, folder: Path, config: str, command: Sequence[str]) -> None:
        self.folder, self.command = folder, list(command)
        self.method = self.command[1]
        (folder / "small.toml").write_text(config)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]), "OMP_NUM_THREADS": "1"}
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        environment["TMPDIR"] = str(self.temporary)
        self.process = subprocess.Popen(
            [sys.executable, SUPPORT / "faulty.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def start(self, output: str, *more: str, faults: list[dict[str, Any]] | None = None) -> psutil.Process:
        """The process that looks after the workers of the command."""
        done = self.folder / f"{output}-faults"
        done.mkdir(exist_ok=True)
        config = str(self.folder / "small.toml")
        arguments = [*self.command, "--config", config, "--output", str(self.folder / output), *more]
        told = {"arguments": arguments, "faults": faults or [], "done": str(done), "said": str(self.said(output))}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        return psutil.Process(int(self._line()))

    def finish(self, output: str, driver: psutil.Process, code: int = 0, limit_s: float = LIMIT_S) -> str:
        """What was said, once it has ended with this code. Who is stuck is ended."""
        ended: list[int] = []
        reader = threading.Thread(target=lambda: ended.append(int(self._line())), daemon=True)
        reader.start()
        grows = [self.said(output), self.folder / output / "metrics.jsonl"]
        try:
            stuck.wait(reader.is_alive, driver.kill, self.temporary, *grows, limit_s=limit_s)
        finally:
            reader.join(timeout=20)
        said = self.said(output).read_text()
        assert ended == [code], said[-3000:]
        return said

    def after(self, output: str, driver: psutil.Process, steps: int) -> list[psutil.Process]:
        """The driver's workers, as soon as so many steps are told."""
        workers: list[psutil.Process] = []
        end = time.monotonic() + LIMIT_S
        while len(self.metrics(output)) < steps:
            assert time.monotonic() < end, "no step was taken"
            workers = driver.children()
            time.sleep(0.02)
        return workers

    def said(self, output: str) -> Path:
        return self.folder / f"{output}.said"

    def policy(self, output: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / output / self.method / "policy" / "adapter_model.safetensors")

    def metrics(self, output: str) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name != "time"} for row in read_metrics(self.folder / output)]

    def close(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)
