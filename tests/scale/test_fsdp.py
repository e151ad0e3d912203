"""A base of which each of two real processes holds half (FSDP2 over gloo) learns, samples and resumes as a whole one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gang_work
import pytest
import small_data
import tiny_t5
import torch
from faulty_project import Project
from gang import Gang

from heedful.config import Config
from heedful.errors import ConfigError, HeedfulError, ModelError
from heedful.models.policy import load_language_model
from heedful.stages.ilql import align_ilql
from heedful.team import ALONE, Alone, LostWorkerError, Team, working_in

pytestmark = pytest.mark.timeout(200)
# Sums of float32 terms in another order, by another way through the model, beside the largest gradient of the update.
SAME_GRADIENT = 2e-5
# After an update of weights that differ in the last bits, which Adam's division by small moments enlarges.
LATER_GRADIENT = 50 * SAME_GRADIENT
SAME_MEASURED = 2e-3
SAME_STATES = 1e-4
# Some steps of the same, beside weights of 0.2.
SAME_WEIGHTS = 1e-5
CONFIG = """
[model]
source = {model!r}
dtype = "float32"
[dpo]
epochs = 1
batch_prompts = 3
checkpoint_every = 1
eval_every = 2
learning_rate = 0.003
[dpo.lora]
rank = 4
layers = 2
[scale]
deadline_s = 50
"""


class Parted(Alone):
    """A team whose members hold parts; nothing that is loaded in it comes so far as to ask for the others."""

    fsdp = True


@pytest.mark.parametrize("kind", ["ppo", "dpo", "reward"])
def test_the_gradient_of_two_with_half_the_base_each_equals_that_of_one(
    two: Gang, tiny: Path, tmp_path: Path, kind: str
) -> None:
    """Whole steps of each: sampling, rewards, reference, every gradient, every number that is measured, evaluation included."""
    alone, measured_alone = gang_work.steps(kind, str(tiny), str(tmp_path), 2)
    both, measured_both = two.both("in_parts", "steps", kind, str(tiny), str(tmp_path), 2)
    assert two.other == "ok"
    assert len(alone) == len(both) >= 2
    for number, (one, other) in enumerate(zip(alone, both, strict=True)):
        largest = max(float(gradient.abs().max()) for gradient in one)
        assert largest > 0
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=(LATER_GRADIENT if number else SAME_GRADIENT) * largest)
    for number, (one_step, other_step) in enumerate(zip(measured_alone, measured_both, strict=True)):
        assert set(one_step) == set(other_step)
        # Before the first update policy and reference are one, and the sign of their difference is that of its last bits.
        for name in set(one_step) - ({"accuracy"} if kind == "dpo" and number == 0 else set()):
            assert one_step[name] == pytest.approx(other_step[name], rel=SAME_MEASURED, abs=SAME_MEASURED), name


def test_each_holds_half_of_the_layers_and_knows_the_reference_by_the_same_digest(two: Gang, tiny: Path) -> None:
    share, packed, digest = gang_work.held(str(tiny))
    assert (share, packed) == (1.0, True)
    assert two.both("in_parts", "held", str(tiny)) == (0.5, False, digest)


def test_who_has_nothing_to_read_makes_empty_passes(two: Gang, tiny: Path) -> None:
    """Forward, backward and what only one member does: none waits for ever, and an empty pass adds nothing."""
    alone = gang_work.uneven(str(tiny))
    both = two.both("in_parts", "uneven", str(tiny))
    assert two.other == "ok"
    for one, other in zip(alone, both, strict=True):
        assert one == pytest.approx(other, rel=SAME_STATES)


@pytest.fixture(scope="module")
def project(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    files = small_data.write(folder, 24)
    made = Project(folder, CONFIG.format(model=str(tiny)), ["align", "dpo", "--preferences", str(files["preferences"])])
    made.finish("one", made.start("one"))
    yield made
    made.close()


def test_dpo_from_the_command_line_is_that_of_one_worker_and_a_run_changes_its_number_of_workers(project: Project) -> None:
    """Two with half the base each, of whom one is killed; the command killed; one with the whole base goes on; two again."""
    parts = ["--set", "scale.num_trainers=2", "--set", "scale.fsdp=true"]
    project.finish("two", project.start("two", *parts))
    faults = [{"rank": 1, "place": "checkpoint", "step": 1, "signal": 9}]
    driver = project.start("changing", *parts, faults=faults)
    project.after("changing", driver, 3)
    driver.kill()
    said = project.finish("changing", driver, code=-9)
    assert said.count("all workers start anew") == 1, said
    faults += [{"rank": 0, "place": "checkpoint", "step": 5, "signal": 9}]
    project.finish("changing", project.start("changing", "--set", "scale.num_trainers=1", faults=faults), code=-9)
    assert len(project.metrics("changing")) < len(project.metrics("one")), "it did not come to its end"
    project.finish("changing", project.start("changing", *parts))
    expected = project.policy("one")
    for output in ("two", "changing"):
        found = project.policy(output)
        assert set(found) == set(expected)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=SAME_WEIGHTS)


def test_what_cannot_be_cut_is_refused_before_it_loads(tiny: Path, tmp_path: Path) -> None:
    team: Team = Parted()
    encoder = tiny_t5.make(tmp_path / "t5")
    for weights in encoder.glob("*.safetensors"):
        weights.unlink()
    with (
        working_in(team),
        pytest.raises(ModelError, match=r"scale\.fsdp = true: .*t5 is an encoder-decoder.*scale\.fsdp = false"),
    ):
        load_language_model(str(encoder), dtype=torch.float32, device=torch.device("cpu"))
    packed = tmp_path / "packed"
    packed.mkdir()
    text = (tiny / "config.json").read_text().rstrip().removesuffix("}")
    (packed / "config.json").write_text(text + ', "quantization_config": {"quant_method": "awq"}}')
    with working_in(team), pytest.raises(ModelError, match="packed numbers"):
        load_language_model(str(packed), dtype=torch.float32, device=torch.device("cpu"))
    config = Config.model_validate({"scale": {"fsdp": True, "num_trainers": 2}})
    with working_in(ALONE), pytest.raises(ConfigError, match=r"scale\.fsdp = true: ILQL is learned by one process"):
        align_ilql(config, tmp_path / "out", preferences=[])
    assert not (tmp_path / "out").exists()
    # With one worker the setting says nothing.
    alone = Config.model_validate({"scale": {"fsdp": True}, "model": {"source": str(tmp_path / "no-model")}})
    with (
        working_in(ALONE),
        pytest.raises(HeedfulError, match="no-model: no such folder"),
    ):
        align_ilql(alone, tmp_path / "alone", preferences=[])


def test_a_pass_that_fails_on_one_worker_ends_the_other_too(two: Gang, tiny: Path, tmp_path: Path) -> None:
    """The last test here: the team is of no use after it. One says what failed, the other that a partner is gone."""
    with pytest.raises(LostWorkerError, match="worker 0 waited for the others at 'a pass through the base'"):
        two.both("in_parts", "breaks", str(tiny), str(tmp_path / "said"))
    assert (tmp_path / "said").read_text().startswith("worker 1, in a pass through the base: IndexError: index out of range")
