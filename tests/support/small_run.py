"""A whole run on the tiny model, in a process of its own that may end itself at a given point.

python small_run.py CONFIG RUN_DIR [STAGE DONE SIGNAL]

DONE is a count of finished pieces, or "written": the stage has written its files and is not marked as done yet.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def start(config: Path, folder: Path, *kill: str) -> subprocess.CompletedProcess[str]:
    """The small run in its own process; kill: stage, count, signal at which it ends itself."""
    command = [sys.executable, __file__, str(config), str(folder), *kill]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def main() -> None:
    import torch

    from heedful.config import load
    from heedful.pipeline import Pipeline
    from heedful.store import Run

    torch.set_num_threads(1)
    # A suite that was started in the background ignores Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config, folder = Path(sys.argv[1]), Path(sys.argv[2])
    stage, done, number = (*sys.argv[3:6], "", "0", "0")[:3]

    def progress(now: str, finished: int, total: int, note: str) -> None:
        if now == stage and done != "written" and finished == int(done):
            os.kill(os.getpid(), int(number))

    class Interrupted(Pipeline):
        def stage(self, name: str, work: Callable[[], None], settings: dict[str, Any], *inputs: Path) -> None:
            def then() -> None:
                work()
                if (name, "written") == (stage, done):
                    os.kill(os.getpid(), int(number))

            super().stage(name, then, settings, *inputs)

    with Run(folder) as run:
        Interrupted(load(config), run, progress, "heedful run")()


if __name__ == "__main__":
    main()
