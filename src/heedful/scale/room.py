"""Whether there is room for a team, asked before anything loads."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from heedful.config import ScaleSection
from heedful.errors import ConfigError


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Numbers of the GPUs that this process may use, from the driver and the environment; torch is not loaded for it."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip() and name.strip() != "-1"]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def require_room(section: ScaleSection) -> None:
    """Raises ConfigError naming what is missing when there are more workers than this machine has cores, or GPUs."""
    if section.runner == "ray":
        if find_spec("ray") is None:
            raise ConfigError("scale.runner = 'ray' needs Ray, which is not installed: pip install 'heedful[ray]'")
        return  # what a cluster has is asked once it is reached
    wanted, cores, gpus = section.num_workers, num_cores(), len(visible_gpus())
    have, what = (gpus, "GPUs") if gpus else (cores, "cores")
    if wanted > 1 and wanted > have:
        asked = f"scale.num_trainers = {section.num_trainers}"
        asked += f" and scale.num_rollout_workers = {section.num_rollout_workers}" if section.num_rollout_workers else ""
        raise ConfigError(
            f"{asked} ask for {wanted} workers, each with one of the {what}, and this machine has {have} {what}: "
            f"{wanted - have} are missing. Lower the numbers, or use scale.runner = 'ray' with the address of a cluster"
        )
