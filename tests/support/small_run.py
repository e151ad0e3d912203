"""A whole run on the tiny model, in a process of its own that may end itself at a given point."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import copies

CONFIG = """
seed = {seed}
[model]
source = {model!r}
dtype = "float32"
[prompts]
num_train = 24
num_heldout = 9
[sample]
num_completions = 3
max_new_tokens = 12
batch_rows = 12
[reward]
epochs = 6
batch_prompts = 4
head_learning_rate = 0.01
heldout_share = 0.25
[reward.lora]
rank = 4
[ppo]
max_steps = 6
episodes = 8
max_new_tokens = 12
num_minibatches = 2
checkpoint_every = 2
eval_every = 3
learning_rate = 0.003
[ppo.lora]
rank = 4
layers = 2
[evaluate]
max_new_tokens = 12
num_resamples = 200
"""


def write_config(path: Path, model: Path, *, seed: int = 0, more: str = "") -> Path:
    path.write_text(CONFIG.format(model=str(model), seed=seed) + more)
    return path


def start(config: Path, folder: Path, *kill: str, room: int = 0) -> subprocess.CompletedProcess[str]:
    """The small run in its own process. kill: stage, done and signal of its end; room: bytes of its largest file, if not 0.

    done: a count of finished pieces, or "written": the stage has written its files and is not marked as done yet.
    """
    stage, done, number = kill or ("", "0", "0")
    command = ["heedful", "run", str(config), "--dir", str(folder)]
    return copies.run(_run, config, folder, stage, done, int(number), room, command=command)


def _run(config: Path, folder: Path, stage: str, done: str, number: int, room: int) -> None:
    import torch

    from heedful.config import load
    from heedful.pipeline import Pipeline
    from heedful.store import Run

    torch.set_num_threads(1)
    if room:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    def progress(now: str, finished: int, total: int, note: str) -> None:
        if now == stage and done != "written" and finished == int(done):
            os.kill(os.getpid(), number)

    class Interrupted(Pipeline):
        def stage(self, name: str, work: Callable[[], None], settings: dict[str, Any], *inputs: Path) -> None:
            def then() -> None:
                work()
                if (name, "written") == (stage, done):
                    os.kill(os.getpid(), number)

            super().stage(name, then, settings, *inputs)

    with Run(folder) as run:
        Interrupted(load(config), run, progress, "heedful run")()
