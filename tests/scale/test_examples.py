"""The examples of clusters: they can be read, and what they tell heedful is what heedful takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from heedful.config import ScaleSection

FOLDER = Path(__file__).parents[2] / "examples" / "cluster"
FILES = ("ray-cluster.yaml", "kuberay.yaml", "slurm.sbatch")


def test_there_are_no_others() -> None:
    assert {file.name for file in FOLDER.iterdir()} == set(FILES)
    page = (FOLDER.parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    assert all(f"../examples/cluster/{name}" in page for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_each_starts_a_run_with_settings_that_there_are(name: str) -> None:
    text = (
        (FOLDER / name).read_text(encoding="utf-8").replace('"$SLURM_JOB_NUM_NODES"', "4").replace('"$head:$port"', "head:6379")
    )
    said = dict(re.findall(r"--set scale\.(\w+)=(\S+)", text))
    assert said.keys() == {"runner", "address", "num_trainers"}
    values = {key: int(value) if value.isdigit() else value for key, value in said.items()}
    section = ScaleSection.model_validate(values)
    assert section.runner == "ray"
    assert section.num_workers == 4
    assert re.search(r"heedful run \S+ --dir \S+", text)


def test_the_cluster_has_as_many_machines_as_the_run_has_workers() -> None:
    ray = yaml.safe_load((FOLDER / "ray-cluster.yaml").read_text(encoding="utf-8"))
    assert ray["head_node_type"] in ray["available_node_types"]
    assert ray["available_node_types"]["worker"]["min_workers"] == ray["max_workers"] == 3
    kube = yaml.safe_load((FOLDER / "kuberay.yaml").read_text(encoding="utf-8"))
    assert (kube["apiVersion"], kube["kind"]) == ("ray.io/v1", "RayJob")
    cluster = kube["spec"]["rayClusterSpec"]
    assert 1 + sum(group["replicas"] for group in cluster["workerGroupSpecs"]) == 4
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_batch_file_is_a_shell_script() -> None:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-n", str(FOLDER / "slurm.sbatch")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", (FOLDER / "slurm.sbatch").read_text("utf-8"), re.MULTILINE))
    assert asked["nodes"] == "4"
    assert "requeue" in asked
