"""The same team with its second worker as an actor of Ray; where Ray is not installed, what says so."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import small_data
import stuck
from command import HEEDFUL, assert_one_paragraph, heedful

from heedful.store import read_metrics, write_jsonl

HAS_RAY = find_spec("ray") is not None
pytestmark = pytest.mark.timeout(400)


def dpo(tiny: Path, tmp_path: Path, output: str, *settings: str) -> list[str]:
    config = tmp_path / "small.toml"
    config.write_text(
        f'[model]\nsource = {str(tiny)!r}\ndtype = "float32"\n[dpo]\nepochs = 3\n[dpo.lora]\nrank = 4\nlayers = 2\n'
    )
    write_jsonl(tmp_path / "pairs.jsonl", small_data.preferences(24))
    chosen = [part for text in settings for part in ("--set", text)]
    asked = ["--config", str(config), "--preferences", str(tmp_path / "pairs.jsonl"), "--output", str(tmp_path / output)]
    return ["align", "dpo", *asked, "--json", *chosen]


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_the_extra_is_named(tiny: Path, tmp_path: Path) -> None:
    failed = heedful(*dpo(tiny, tmp_path, "out", "scale.runner=ray", "scale.num_trainers=2"))
    assert_one_paragraph(failed, "scale.runner = 'ray' needs Ray", "pip install 'heedful[ray]'")


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install 'heedful[ray]'")
def test_two_workers_by_ray_are_two_workers_also_when_an_actor_is_killed(tiny: Path, tmp_path: Path) -> None:
    """As processes, and as actors of which one is killed: the same result, to the bit."""
    found = []
    for runner in ("processes", "ray"):
        asked = dpo(tiny, tmp_path, runner, f"scale.runner={runner}", "scale.num_trainers=2", "dpo.checkpoint_every=1")
        temporary, said, result = (tmp_path / f"{runner}-{name}" for name in ("temporary", "said", "result"))
        temporary.mkdir()
        # Files and no pipes: Ray's own processes hold these ends a while longer. Its sockets need a short path.
        environment = os.environ | {"TMPDIR": str(temporary), "RAY_TMPDIR": "/tmp"}
        with said.open("w") as errors, result.open("w") as output:
            process = subprocess.Popen([*HEEDFUL, *asked], stdout=output, stderr=errors, env=environment)
        grows = [said, tmp_path / runner / "metrics.jsonl"]

        def goes_on(process: subprocess.Popen[bytes] = process, until: int = 2 if runner == "ray" else 1000) -> bool:
            return process.poll() is None and len(read_metrics(tmp_path / "ray")) < until

        stuck.wait(goes_on, process.kill, temporary, *grows)
        if runner == "ray":
            actors = [one for one in psutil.Process(process.pid).children(recursive=True) if "ray::Holder" in one.name()]
            assert len(actors) == 1
            actors[0].kill()
        stuck.wait(lambda process=process: process.poll() is None, process.kill, temporary, *grows)  # type: ignore[misc]
        stdout, stderr = result.read_text(), said.read_text()
        assert process.returncode == 0, stderr
        assert ("worker 1 was ended by SIGKILL" in stderr) == (runner == "ray")
        found.append(json.loads(stdout))
    assert found[0] == found[1]
    policies = [(tmp_path / runner / "dpo" / "policy" / "adapter_model.safetensors") for runner in ("processes", "ray")]
    assert policies[0].read_bytes() == policies[1].read_bytes()


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install 'heedful[ray]'")
def test_a_cluster_that_is_too_small_is_told_before_anything_loads(tmp_path: Path) -> None:
    import ray

    from heedful.config import ScaleSection
    from heedful.errors import ConfigError
    from heedful.scale.ray import RayRunner

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        section = ScaleSection(runner="ray", num_trainers=2, num_rollout_workers=3, address="auto")
        with pytest.raises(ConfigError, match=r"num_rollout_workers = 3 ask for 5 workers.* has 2: 3 are missing"):
            RayRunner(["true"], tmp_path, section)
    finally:
        ray.shutdown()
