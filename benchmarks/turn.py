"""What a turn of either side hands back: seconds of each step, peak memory, which tokens were read, what it computed.

A turn is one process that does one work: it warms up, then times a few steps. This file is read in the peers' environments
as well, so it needs nothing but torch.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

THREADS = 2


def read_job() -> dict[str, Any]:
    """The job file that the command line names, with the inputs it points to; sets the number of threads."""
    if len(sys.argv) != 2:
        sys.exit(
            f"{sys.argv[0]}: expected one argument, the job file; 'python benchmarks/run.py' writes it and starts the turn"
        )
    torch.set_num_threads(THREADS)
    job = json.loads(Path(sys.argv[1]).read_text())
    return {**job, "inputs": json.loads(Path(job["inputs"]).read_text())}


def digest(rows: Sequence[Sequence[int]]) -> str:
    """Hash of sequences of token ids, whatever their order in the batch."""
    return hashlib.sha256(json.dumps(sorted(map(list, rows))).encode()).hexdigest()[:16]


def peak_memory_gb() -> float:
    """The process's peak so far (VmHWM of /proc/self/status), loading included; the kernel offers no way to reset it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024**2
    raise OSError("/proc/self/status: no line VmHWM; these benchmarks need Linux")


class Clock:
    """Times steps and gathers what each of them read.

    The first `warmup` steps are reported apart. `extra_s`: timed work that belongs to all timed steps together, such as the
    reference pass over their answers.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.seconds: list[float] = []
        self.rows: list[list[list[int]]] = [[]]
        self.extra_s = 0.0
        self.facts: dict[str, Any] = {}
        self._began = time.perf_counter()

    def begin(self) -> None:
        """What went before belongs to no step."""
        self._began = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last step ended or `begin` was called; the next step begins now."""
        seconds = time.perf_counter() - self._began
        self._began = time.perf_counter()
        return seconds

    def read(self, rows: Sequence[Sequence[int]]) -> None:
        """The token ids that the present step reads, without padding."""
        self.rows[-1] += [list(map(int, row)) for row in rows]

    def end(self) -> None:
        """The present step is over, the next one begins."""
        now = time.perf_counter()
        self.seconds.append(now - self._began)
        print(f"  step {len(self.seconds)}: {self.seconds[-1]:.2f} s", file=sys.stderr, flush=True)
        self.rows.append([])
        self._began = time.perf_counter()

    def write(self, *, units_per_step: float, **facts: Any) -> None:
        """Writes the turn's result where the job wants it. units_per_step: pairs, completions, episodes or new tokens."""
        warmup = self.job["warmup"]
        timed = self.seconds[warmup:]
        rows = self.rows[: len(self.seconds)]
        total = sum(timed) + self.extra_s
        found = {
            "work": self.job["work"],
            "side": self.job["side"],
            "step_s": timed,
            "warmup_s": self.seconds[:warmup],
            "extra_s": self.extra_s,
            "total_s": total,
            "units": units_per_step * len(timed),
            "rate": units_per_step * len(timed) / total,
            "peak_memory_gb": peak_memory_gb(),
            "num_tokens": [sum(map(len, step)) for step in rows],
            "token_digest": [digest(step) for step in rows],
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            **self.facts,
            **facts,
        }
        Path(self.job["out"]).write_text(json.dumps(found, indent=1) + "\n")


def unpadded(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """Rows of a padded batch without their padding."""
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


def marked_rows(job: dict[str, Any]) -> list[dict[str, Any]]:
    """KTO's completions in the order in which they are read: by turns a good and a bad one, each of another prompt.

    Each comes with a mismatched completion, that of the example before it in its batch.
    """
    rows = []
    for i in job["order"]:
        row = job["inputs"]["pairs"][job["examples"][i]]
        desirable = i % 2 == 0
        rows.append(
            {
                "example": i,
                "prompt_ids": row["prompt_ids"],
                "completion_ids": row["chosen_ids" if desirable else "rejected_ids"],
                "label": desirable,
            }
        )
    for start in range(0, len(rows), job["batch"]):
        batch = rows[start : start + job["batch"]]
        for row, before in zip(batch, [batch[-1], *batch[:-1]], strict=True):
            row["KL_completion_ids"] = before["completion_ids"]
    return rows


def even_share(response_ids: Sequence[int]) -> float:
    """GRPO's reward: the share of even token ids. It costs nothing and is hardly ever the same for all of a group."""
    return sum(token % 2 == 0 for token in response_ids) / max(1, len(response_ids))
