"""The same team with its second worker as an actor of Ray, also when the node that it was on is lost; and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import copies
import pytest
import small_data
import stuck
from command import HEEDFUL, assert_one_paragraph

from heedful.config import ScaleSection
from heedful.errors import ConfigError, HeedfulError
from heedful.scale.members import Member
from heedful.scale.runners import Runner
from heedful.store import read_metrics, write_jsonl

pytestmark = pytest.mark.timeout(400)
STARTING_S = 180.0
TWO = [Member(rank, 2, 2, "", 60.0) for rank in (0, 1)]
SILENT = {"include_dashboard": False, "object_store_memory": 80_000_000}


@pytest.fixture(autouse=True)
def _short_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # its sockets lie below
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which a RayRunner puts elsewhere


def dpo(tiny: Path, folder: Path, *settings: str) -> list[str]:
    folder.mkdir()
    config = folder / "small.toml"
    config.write_text(
        f'[model]\nsource = {str(tiny)!r}\ndtype = "float32"\n[dpo]\nepochs = 12\ncheckpoint_every = 1\n'
        "[dpo.lora]\nrank = 4\nlayers = 2\n[scale]\nnum_trainers = 2\n"
    )
    write_jsonl(folder / "pairs.jsonl", small_data.preferences(24))
    chosen = [part for text in settings for part in ("--set", text)]
    asked = ["--config", str(config), "--preferences", str(folder / "pairs.jsonl"), "--output", str(folder / "out")]
    return ["align", "dpo", *asked, "--json", *chosen]


class Run:
    """`heedful align dpo` as a user starts it."""

    def __init__(self, tiny: Path, folder: Path, *settings: str) -> None:
        arguments = dpo(tiny, folder, *settings)
        self.out, self.temporary, self.said, self.told = (folder / name for name in ("out", "temporary", "said", "told"))
        self.temporary.mkdir()
        environment = os.environ | {
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
        }
        # Files and no pipes: Ray's own processes hold these ends a while longer.
        with self.said.open("w") as errors, self.told.open("w") as output:
            self.process = subprocess.Popen([*HEEDFUL, *arguments], stdout=output, stderr=errors, env=environment)

    def until(self, reached: Callable[[], bool] = lambda: False, limit_s: float = stuck.LIMIT_S) -> None:
        """Waits for something, or for the end. A run that makes no step for limit_s is ended, see stuck.py."""
        grows = [self.said, self.out / "metrics.jsonl"]

        def wait(goes_on: Callable[[], bool], limit_s: float) -> None:
            stuck.wait(
                lambda: self.process.poll() is None and goes_on(), self.process.kill, self.temporary, *grows, limit_s=limit_s
            )

        # Before the first step Ray starts ten processes of its own and each worker reads torch, and none tells how far it is.
        wait(lambda: not self.steps(), STARTING_S)
        wait(lambda: not reached(), limit_s)

    def steps(self) -> int:
        return len(read_metrics(self.out))

    def result(self) -> tuple[object, bytes]:
        assert self.process.returncode == 0, self.said.read_text()
        policy = self.out / "dpo" / "policy" / "adapter_model.safetensors"
        return json.loads(self.told.read_text()), policy.read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, bytes]:
    """The run by two processes."""
    run = Run(tiny, tmp_path_factory.mktemp("processes") / "run", "scale.runner=processes")
    run.until()
    return run.result()


def test_a_worker_by_ray_is_a_worker(tiny: Path, tmp_path: Path, undisturbed: tuple[object, bytes]) -> None:
    run = Run(tiny, tmp_path / "run", "scale.runner=ray")
    run.until()
    assert run.result() == undisturbed


def test_a_node_that_is_lost_is_waited_for_and_the_run_goes_on_by_itself(
    tiny: Path, tmp_path: Path, undisturbed: tuple[object, bytes]
) -> None:
    """Two nodes with a place each: the first worker's, and that of the second, which is killed with all that is on it."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **SILENT})
    try:
        second = cluster.add_node(num_cpus=1, **SILENT)
        run = Run(tiny, tmp_path / "run", "scale.runner=ray", f"scale.address={cluster.address}")
        try:
            run.until(lambda: run.steps() >= 2)
            cluster.remove_node(second, allow_graceful=False)
            run.until(lambda: "waiting up to 300 s for a node to join" in run.said.read_text())
            taken = run.steps()
            cluster.add_node(num_cpus=1, **SILENT)
            run.until(limit_s=STARTING_S)  # a node, an actor, and torch read anew by both
            said = run.said.read_text()
            assert run.result() == undisturbed
        finally:
            run.process.kill()
            run.process.wait(timeout=10)
    finally:
        cluster.shutdown()
    assert 2 <= taken < run.steps()
    assert re.search(r"worker 1 (was ended by SIGKILL|did not come to the others in time).*; all workers start anew", said)
    # A node that was just killed is still counted for some seconds.
    assert re.search(r"2 workers need one CPU each; .* has [12], 0 of them free, and had no place for worker 1", said)
    assert "the Ray cluster has a place for each worker again" in said


# What is refused


def without_ray() -> None:
    sys.modules["ray"] = None  # type: ignore[assignment]
    from heedful.cli.app import main

    main()


def test_without_ray_the_extra_is_named(tiny: Path, tmp_path: Path) -> None:
    failed = copies.run(without_ray, command=["heedful", *dpo(tiny, tmp_path / "run", "scale.runner=ray")])
    assert_one_paragraph(failed, "scale.runner = 'ray' needs Ray", "pip install 'heedful[ray]'")


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:9", "refused"), ("ray://127.0.0.1:9", "refused"), ("auto", "Could not find any")],
)
def test_an_address_where_no_cluster_answers_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    from heedful.scale.ray import RayRunner

    # No cluster of this machine left its address there, and none is looked for among the processes.
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", cache(set))
    clock = time.monotonic()
    with pytest.raises(ConfigError, match=rf"scale.address = '{address}': no Ray cluster answers there \(.*{said}.*ray start"):
        RayRunner(["true"], tmp_path, ScaleSection(runner="ray", num_trainers=2, address=address))
    assert time.monotonic() - clock < 20


def test_without_an_address_a_ray_is_started_here_whatever_others_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from heedful.scale.ray import RayRunner

    asked = []

    def init(**options: object) -> None:
        asked.append(options)
        raise RuntimeError("Version mismatch:\nRay: 2.60.0")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConfigError, match=r"could not be started on this machine \(Version mismatch: Ray: 2\.60\.0\)"):
        RayRunner(["true"], tmp_path, ScaleSection(runner="ray", num_trainers=2))
    assert [(options["address"], options["num_cpus"]) for options in asked] == [("local", 2)]
    with pytest.raises(ConfigError, match=r"'auto': this process cannot join the Ray cluster \(Version mismatch.*same Python"):
        RayRunner(["true"], tmp_path, ScaleSection(runner="ray", num_trainers=2, address="auto"))


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[None]:
    """For the last tests here: as long as it is there, this process has no other."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", "/tmp")
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        ray.init("local", num_cpus=2, logging_level="ERROR", log_to_driver=False, **SILENT)
        yield
        ray.shutdown()


class Unknown:
    """No actor of Ray's can import this module, as none can import heedful on a machine that lacks it."""

    def __init__(self, log: str) -> None:
        """Never reached."""

    def place(self) -> None:
        """Never asked."""


def until_told(runner: Runner) -> list[int | None]:
    """The exit codes, as soon as that of the second is known."""
    end = time.monotonic() + 30
    while runner.exits()[1] is None and time.monotonic() < end:
        time.sleep(0.05)
    return runner.exits()


def test_a_cluster_that_is_too_small_or_busy_is_told(
    small_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too small: before anything loads. Busy: after the wait for a place."""
    import ray

    from heedful.scale.ray import Holder, RayRunner

    section = ScaleSection(runner="ray", num_trainers=2, num_rollout_workers=3, address="auto", node_wait_s=4)
    with pytest.raises(ConfigError, match=r"num_rollout_workers = 3 ask for 5 workers, .* one CPU.* has 2: 3 are missing"):
        RayRunner(["true"], tmp_path, section)
    with monkeypatch.context() as gpus:
        gpus.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        with pytest.raises(ConfigError, match=r"ask for 5 workers, each with one GPU beside.* has 0: 4 are missing"):
            RayRunner(["true"], tmp_path, section)
    other = ray.remote(num_cpus=1)(Holder).remote("")
    ray.get(other.place.remote(), timeout=60)
    runner = RayRunner(["true"], tmp_path, section.model_copy(update={"num_rollout_workers": 0}))
    with pytest.raises(HeedfulError, match=r"has 2, 0 of them free, and had no place for worker 1 within .* 4 s.* add a node"):
        runner.start(TWO)
    assert "for worker 1 yet; waiting up to 4 s for a node to join" in capsys.readouterr().err


def test_a_worker_that_cannot_start_is_told_with_its_machine_and_the_cause(small_cluster: None, tmp_path: Path) -> None:
    import socket

    from heedful.scale.ray import RayRunner

    runner = RayRunner(["true"], tmp_path, ScaleSection(runner="ray", num_trainers=2, address="auto", node_wait_s=60))
    runner.command = [str(tmp_path / "no-such-python")]
    try:
        runner.start(TWO)
        with pytest.raises(HeedfulError, match=f"worker 1 could not be started on {socket.gethostname()}: FileNotFound.*no-"):
            until_told(runner)
    finally:
        runner.stop()


def test_the_last_words_of_a_worker_on_another_machine_come_where_the_command_is(small_cluster: None, tmp_path: Path) -> None:
    """The actor's folder for logs is not there; the first worker's is."""
    from heedful.scale.ray import RayRunner

    command = [sys.executable, "-c", "import sys; sys.exit('first\\nerror: no such model\\nlast')"]
    section = ScaleSection(runner="ray", num_trainers=2, address="auto", node_wait_s=60)
    runner = RayRunner(command, tmp_path / "elsewhere", section)
    try:
        runner.start(TWO)
        runner.logs = tmp_path
        assert until_told(runner)[1] == 1
    finally:
        runner.stop()
    said = (tmp_path / "worker-1.log").read_text()
    assert re.fullmatch(r"on \S+, where the rest of it is in /\S+/heedful-\S+/worker-1.log:\nerror: no such model\n", said)


def test_an_actor_that_cannot_begin_is_told_at_once(
    small_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heedful.scale import ray as by_ray

    monkeypatch.setattr(by_ray, "Holder", Unknown)
    runner = by_ray.RayRunner(["true"], tmp_path, ScaleSection(runner="ray", num_trainers=2, address="auto", node_wait_s=60))
    with pytest.raises(HeedfulError, match=r"cannot begin on .*ModuleNotFoundError: No module named '.*needs this Python"):
        runner.start(TWO)


def test_a_member_without_a_place_of_the_cluster_is_not_counted(
    small_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heedful.scale.ray import RayRunner

    section = ScaleSection(runner="ray", num_trainers=3, address="auto")
    with pytest.raises(ConfigError, match="1 are missing"):
        RayRunner(["true"], tmp_path, section)
    monkeypatch.setattr(RayRunner, "_seated", lambda self: False)
    RayRunner(["true"], tmp_path, section)
