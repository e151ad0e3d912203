"""What the figures were measured on."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import peers
from turn import THREADS

from heedful.store import git_revision, versions

BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16")


def describe() -> dict[str, Any]:
    """Processor, memory, threads, versions of both sides, date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    return {
        "cpu": facts.get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "torch_threads": THREADS,
        "bfloat16_flags": [flag for flag in BFLOAT16_FLAGS if flag in flags],
        "system": platform.platform(),
        "versions": versions(),
        "revision": git_revision(),
        "peers": {path.stem.removeprefix("peers-"): _pins(path) for path in sorted(peers.HERE.glob("peers-*.txt"))},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _pins(path: Path) -> list[str]:
    return [peers.TORCH, *(line for line in path.read_text().splitlines() if line and not line.startswith("#"))]
