"""Workers that are killed, a driver that is killed: the run goes on, and ends with the very weights of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty
import psutil
import pytest
import torch
from safetensors.torch import load_file

from heedful.store import read_metrics

pytestmark = pytest.mark.timeout(400)
# Six steps of sums in another order, beside weights of 0.2.
SAME_WEIGHTS = 1e-5
CONFIG = """
[model]
source = {model!r}
dtype = "float32"
[prompts]
num_train = 16
num_heldout = 4
[ppo]
max_steps = 4
episodes = 8
max_new_tokens = 8
num_minibatches = 2
checkpoint_every = 1
eval_every = 4
learning_rate = 0.003
[ppo.lora]
rank = 4
layers = 2
[scale]
num_trainers = 2
deadline_s = 60
"""
REWARD = """
def vowels(prompts, completions):
    with open({log!r}, "a") as file:
        file.write(f"{{len(completions)}}\\n")
    return [sum(c in "aeiou" for c in text) / (1 + len(text)) for text in completions]
"""


class Project:
    """A configuration and a reward in a folder, and the command on them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        (folder / "small.toml").write_text(CONFIG.format(model=str(model)))
        (folder / "reward.py").write_text(REWARD.format(log=str(folder / "asked")))

    def start(self, output: str, *more: str, faults: list[dict[str, Any]] | None = None) -> subprocess.Popen[str]:
        done = self.folder / f"{output}-faults"
        done.mkdir(exist_ok=True)
        environment = os.environ | {
            "FAULTS": json.dumps(faults or []),
            "FAULTS_DONE": str(done),
            "PYTHONPATH": os.pathsep.join([str(Path(faulty.__file__).parent), *sys.path]),
            "OMP_NUM_THREADS": "1",
        }
        asked = ["--config", str(self.folder / "small.toml"), "--reward-model", str(self.folder / "reward.py:vowels")]
        command = [sys.executable, faulty.__file__, "align", "ppo", *asked, "--output", str(self.folder / output), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def policy(self, output: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / output / "ppo" / "policy" / "adapter_model.safetensors")

    def metrics(self, output: str) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name != "time"} for row in read_metrics(self.folder / output)]


def finish(process: subprocess.Popen[str], limit_s: float = 300) -> str:
    """What it said on stderr, once it has ended well. One that is stuck is ended, and its last words are shown."""
    try:
        _, said = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"stuck after {limit_s} s: {process.communicate()[1][-2000:]}")
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def project(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("project"), tiny)
    finish(made.start("undisturbed"))
    yield made


def test_workers_killed_in_rollout_backward_and_checkpoint_change_nothing(project: Project) -> None:
    """Bit for bit: all numbers of all steps, and the weights. The reward is asked again only for steps that were lost."""
    faults = [
        {"rank": 1, "place": "rollout", "step": 1, "signal": signal.SIGKILL},
        {"rank": 1, "place": "backward", "step": 2, "signal": signal.SIGKILL},
        {"rank": 0, "place": "checkpoint", "step": 3, "signal": signal.SIGKILL},
    ]
    said = finish(project.start("disturbed", faults=faults))
    assert said.count("all workers start anew") == 3, said
    assert "worker 1 was ended by SIGKILL, last heard of at 'step 1: rollouts" in said
    assert "worker 1 was ended by SIGKILL, last heard of at 'step 2: gradients" in said
    assert "worker 0 was ended by SIGKILL, last heard of at 'step 3: after checkpoint" in said
    assert project.metrics("disturbed") == project.metrics("undisturbed")
    assert [row["step"] for row in project.metrics("disturbed")] == [0, 1, 2, 3]
    one, other = project.policy("undisturbed"), project.policy("disturbed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_killed_driver_leaves_nobody_and_one_worker_goes_on_alone(project: Project) -> None:
    """Its workers end with it; the same command with another number of workers resumes, close to the run of two."""
    process = project.start("orphaned")
    workers: list[psutil.Process] = []
    end = time.monotonic() + 200
    while len(project.metrics("orphaned")) < 2:
        assert time.monotonic() < end, "no step was taken"
        assert process.poll() is None, process.communicate()
        workers = psutil.Process(process.pid).children()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert len(workers) == 2
    psutil.wait_procs(workers, timeout=20)
    assert not any(worker.is_running() for worker in workers)
    finish(project.start("orphaned", "--set", "scale.num_trainers=1"))
    assert [row["step"] for row in project.metrics("orphaned")] == [0, 1, 2, 3]
    one, other = project.policy("undisturbed"), project.policy("orphaned")
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=SAME_WEIGHTS)
