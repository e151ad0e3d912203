"""Workers that are killed, a driver that is killed: the run goes on, and ends with the very weights of an undisturbed one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from faulty_project import Project

from heedful.scale.supervision import MOST_RESTARTS

pytestmark = pytest.mark.timeout(400)
# Six steps of sums in another order, beside weights of 0.2.
SAME_WEIGHTS = 1e-5
SHORT_S = 15
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
deadline_s = 50
"""
REWARD = """
def vowels(prompts, completions):
    with open({log!r}, "a") as file:
        file.write(f"{{len(completions)}}\\n")
    return [sum(c in "aeiou" for c in text) / (1 + len(text)) for text in completions]
"""


@pytest.fixture(scope="module")
def project(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "reward.py").write_text(REWARD.format(log=str(folder / "asked")))
    command = ["align", "ppo", "--reward-model", str(folder / "reward.py:vowels")]
    made = Project(folder, CONFIG.format(model=str(tiny)), command)
    made.finish("undisturbed", made.start("undisturbed"))
    yield made
    made.close()


def test_workers_killed_in_rollout_backward_and_checkpoint_change_nothing(project: Project) -> None:
    """Bit for bit: all numbers of all steps, and the weights."""
    faults = [
        {"rank": 1, "place": "rollout", "step": 1, "signal": signal.SIGKILL},
        {"rank": 1, "place": "backward", "step": 2, "signal": signal.SIGKILL},
        {"rank": 0, "place": "checkpoint", "step": 3, "signal": signal.SIGKILL},
    ]
    said = project.finish("disturbed", project.start("disturbed", faults=faults))
    assert said.count("all workers start anew") == 3, said
    assert "worker 1 was ended by SIGKILL, last heard of at 'step 1: rollouts" in said
    assert "worker 1 was ended by SIGKILL, last heard of at 'step 2: gradients" in said
    assert "worker 0 was ended by SIGKILL, last heard of at 'step 3: after checkpoint" in said
    assert project.metrics("disturbed") == project.metrics("undisturbed")
    assert [row["step"] for row in project.metrics("disturbed")] == [0, 1, 2, 3]
    one, other = project.policy("undisturbed"), project.policy("disturbed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_worker_that_is_stuck_is_named_and_the_team_starts_anew(project: Project) -> None:
    """It is stopped, not killed: nobody hears of its end, and only the deadline tells."""
    faults = [{"rank": 1, "place": "rollout", "step": 1, "signal": signal.SIGSTOP}]
    deadline = f"scale.deadline_s={SHORT_S}"
    said = project.finish("stuck", project.start("stuck", "--set", deadline, faults=faults))
    assert "worker 0 waited for the others at 'step 1: rollouts'" in said
    assert "worker 1 did not come to the others in time, last heard of at 'step 1: rollouts" in said
    assert project.metrics("stuck") == project.metrics("undisturbed")


def test_a_worker_that_dies_each_time_ends_the_run_with_one_paragraph(project: Project) -> None:
    faults = [{"rank": 1, "place": "rollout", "step": 0, "signal": signal.SIGKILL}] * (MOST_RESTARTS + 1)
    said = project.finish("hopeless", project.start("hopeless", faults=faults), code=1)
    *_, last = said.strip().splitlines()
    assert last.startswith("error: worker 1 was ended by SIGKILL"), said
    assert "without a step forward" in last
    assert "Traceback" not in said


def test_a_pass_that_breaks_ends_the_worker_at_once_and_the_run_with_its_words(project: Project) -> None:
    """What would be done on the way out is not: the others wait in the middle of the pass."""
    left = project.folder / "left"
    faults = [{"rank": 1, "place": "backward", "step": 1, "breaks": "worker 1, in a pass: no memory", "left": str(left)}]
    said = project.finish("broken", project.start("broken", faults=faults), code=1)
    assert "error: worker 1, in a pass: no memory (worker 1; all of its words are in" in said
    assert "all workers start anew" not in said
    assert not left.exists()


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(project: Project) -> None:
    """No file may grow beyond 4 kB from the third checkpoint on: the second is whole, and the same command ends as ever."""
    faults = [{"rank": 0, "place": "checkpoint", "step": 2, "largest_file": 4096}]
    said = project.finish("full", project.start("full", faults=faults), code=1)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "ppo/checkpoint.pt: cannot be written (File too large). Free space" in error
    assert "all workers start anew" not in said
    checkpoint = project.folder / "full" / "ppo" / "checkpoint.pt"
    assert torch.load(checkpoint, weights_only=True)["run"]["step"] == 2
    assert [file.name for file in checkpoint.parent.iterdir() if file.name.endswith(".tmp")] == []
    project.finish("full", project.start("full"))
    assert project.metrics("full") == project.metrics("undisturbed")
    one, other = project.policy("undisturbed"), project.policy("full")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_team_that_is_stuck_is_ended_by_the_suite_which_says_where(project: Project) -> None:
    """Both workers stand still, and the deadline, which one of them would have to see, is of no use."""
    faults = [{"rank": rank, "place": "rollout", "step": 1, "signal": signal.SIGSTOP} for rank in (0, 1)]
    driver = project.start("hung", faults=faults)
    with pytest.raises(
        pytest.fail.Exception, match=r"stuck: no step for 8 s, worker 0 at step 1: .*; worker 1 at step 1: roll"
    ):
        project.finish("hung", driver, limit_s=8.0)
    assert not driver.is_running()


def test_a_killed_driver_leaves_nobody_and_one_worker_goes_on_and_then_two_again(project: Project) -> None:
    """Its workers end with it. One worker goes on from their checkpoint, two from its: close to the undisturbed run of two."""
    driver = project.start("orphaned")
    workers = project.after("orphaned", driver, 1)
    driver.kill()
    assert len(workers) == 2
    gone, alive = psutil.wait_procs(workers, timeout=20)
    assert (len(gone), alive) == (2, [])
    project.finish("orphaned", driver, code=-signal.SIGKILL)
    alone = project.start("orphaned", "--set", "scale.num_trainers=1")
    assert project.after("orphaned", alone, 3) == []
    alone.kill()
    project.finish("orphaned", alone, code=-signal.SIGKILL)
    project.finish("orphaned", project.start("orphaned"))
    assert [row["step"] for row in project.metrics("orphaned")] == [0, 1, 2, 3]
    one, other = project.policy("undisturbed"), project.policy("orphaned")
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=SAME_WEIGHTS)
