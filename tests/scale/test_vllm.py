"""Answers from a server that speaks vLLM's protocol (support/vllm_server.py, not vLLM itself), and what is not believed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import gang_work
import pytest
from vllm_server import Fake, vllm_server

from heedful.config import Config
from heedful.errors import ConfigError, TrainingError
from heedful.models.policy import POLICY
from heedful.stages.align import vllm_server as configured
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.rollout import tensors_digest
from heedful.training.vllm import KEPT, VllmServer

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def served(tiny: Path) -> Iterator[tuple[str, Fake]]:
    with vllm_server(tiny) as found:
        yield found


def method(
    tiny: Path, url: str, folder: Path, *, max_staleness: int = 0, base: str = "base", retries: int = 3
) -> PolicyGradient:
    made = gang_work.online(str(tiny), "ppo", max_staleness=max_staleness)
    folder.mkdir(exist_ok=True)
    server = VllmServer(url, base, folder, timeout_s=30, max_retries=retries, backoff_s=0.01, sleep=lambda _: None)
    made.ask_server(server)
    return made


def test_each_step_loads_its_adapter_and_learns_from_its_answers(tiny: Path, tmp_path: Path, served: tuple[str, Fake]) -> None:
    url, fake = served
    made = method(tiny, url, tmp_path / "adapters")
    fake.busy = 2
    before = tensors_digest(made.model.adapter_parameters(POLICY).values())
    measured = [made.step(step) for step in range(2)]
    assert Path(fake.loaded[0]).name == f"000000-{before[:12]}"
    assert len(set(fake.loaded)) == 2
    assert [row["staleness"] for row in measured] == [0.0, 0.0]
    # The server's arithmetic is that of the same code: a weight is 1 but for rounding, and none is cut.
    assert all(row["sampler_gap"] < 1e-4 and row["truncated_share"] == 0 for row in measured)
    assert tensors_digest(made.model.adapter_parameters(POLICY).values()) != before
    assert {body["n"] for body in fake.asked} == {2}
    assert len({body["seed"] for body in fake.asked}) == 12, "six prompts a step, each with a seed of its own"


def test_with_staleness_the_server_draws_ahead(tiny: Path, tmp_path: Path, served: tuple[str, Fake]) -> None:
    url, fake = served
    made = method(tiny, url, tmp_path / "adapters", max_staleness=1)
    assert [made.step(step)["staleness"] for step in range(3)] == [0.0, 1.0, 1.0]
    assert made.sampler
    made.sampler.forget()
    versions = [int(Path(path).name[:6]) for path in fake.loaded]
    assert versions[:3] == [0, 0, 1]


def test_a_server_that_keeps_the_old_adapter_is_refused(tiny: Path, tmp_path: Path, served: tuple[str, Fake]) -> None:
    url, fake = served
    made = method(tiny, url, tmp_path / "adapters")
    made.step(0)
    fake.deaf = True
    with pytest.raises(TrainingError, match=r"holds the adapter '.*/000000-\w{12}' .* this step's is .*/000001-"):
        made.step(1)


def test_log_probs_of_another_distribution_are_refused(tiny: Path, tmp_path: Path, served: tuple[str, Fake]) -> None:
    """As of a server that tells log-probs before the temperature, or draws with other weights than it says."""
    url, fake = served
    fake.shift = -0.5
    with pytest.raises(TrainingError, match="the rollouts come from other weights"):
        method(tiny, url, tmp_path / "adapters").step(0)


def test_a_server_that_is_down_or_serves_another_model_is_named(tiny: Path, tmp_path: Path, served: tuple[str, Fake]) -> None:
    url, fake = served
    with pytest.raises(TrainingError, match=r"serves base, heedful-policy and no 'other'; set scale\.vllm_model"):
        method(tiny, url, tmp_path / "adapters", base="other").step(0)
    fake.busy = 1000
    with pytest.raises(TrainingError, match=r"/v1/completions: the server answered 503 .* try 3 of 3.*mend the vLLM server"):
        method(tiny, url, tmp_path / "adapters", retries=2).step(0)
    with pytest.raises(TrainingError, match=r"http://127\.0\.0\.1:9/v1/load_lora_adapter"):
        method(tiny, "http://127.0.0.1:9", tmp_path / "adapters", retries=0).step(0)


def test_a_resumed_run_gives_the_server_the_weights_of_its_checkpoint(
    tiny: Path, tmp_path: Path, served: tuple[str, Fake]
) -> None:
    url, fake = served
    made = method(tiny, url, tmp_path / "adapters", max_staleness=1)
    for step in range(2):
        made.step(step)
    assert made.sampler
    made.sampler.forget()
    again = method(tiny, url, tmp_path / "others", max_staleness=1)
    again.load_state_dict(made.state_dict())
    assert again.step(2)["staleness"] == 1
    assert again.sampler
    again.sampler.forget()
    assert Path(fake.loaded[-1]).parent.name == "others"


def test_old_adapters_go_by_age_and_not_by_step(tiny: Path, tmp_path: Path) -> None:
    """A second run over one folder, or a run that went back, begins with low steps beside high ones."""
    made = method(tiny, "http://127.0.0.1:9", tmp_path / "adapters")
    assert made.sampler
    server = made.sampler.server
    assert server
    high = [server.write(made.model, POLICY, step, "a" * 64) for step in range(100, 100 + KEPT + 2)]
    low = [server.write(made.model, POLICY, step, "b" * 64) for step in range(2)]
    assert all(folder.is_dir() for folder in (*low, *high[4:]))
    assert not any(folder.exists() for folder in high[:4])
    assert server.write(made.model, POLICY, 104, "a" * 64) == high[4], "one that is there is the newest again"
    server.write(made.model, POLICY, 2, "b" * 64)
    assert high[4].is_dir()
    assert not high[5].exists()


def test_a_run_that_is_over_does_not_wait_for_a_server_that_is_down(tiny: Path, tmp_path: Path) -> None:
    made = gang_work.online(str(tiny), "ppo", max_staleness=1)
    (tmp_path / "adapters").mkdir()
    made.ask_server(VllmServer("http://127.0.0.1:9", "base", tmp_path / "adapters", timeout_s=30, backoff_s=60))
    assert made.sampler
    made.sampler.begins(0)
    drawing = made.sampler.waiting[0]
    clock = time.monotonic()
    made.sampler.close()
    with pytest.raises((TrainingError, CancelledError)):
        drawing.result(timeout=10)
    assert time.monotonic() - clock < 10, "the first pause alone is a minute"


def test_settings_name_the_server(tmp_path: Path) -> None:
    config = Config.model_validate({"scale": {"vllm_url": "http://here:8000/v1/", "vllm_folder": str(tmp_path / "a")}})
    server = configured(config, tmp_path / "b")
    assert server
    assert (server.url, server.base, server.folder) == ("http://here:8000", config.model.source, tmp_path / "a")
    assert configured(Config(), tmp_path) is None
    with pytest.raises(ValueError, match="vllm_url"):
        Config.model_validate({"scale": {"vllm_model": "m"}})
    with pytest.raises(ValueError, match="'here:8000' is no address"):
        Config.model_validate({"scale": {"vllm_url": "here:8000"}})
    named = Config.model_validate({"scale": {"vllm_url": "http://here:8000", "vllm_token_env": "NOT_THERE"}})
    with pytest.raises(ConfigError, match=r"scale\.vllm_token_env = 'NOT_THERE'"):
        configured(named, tmp_path)
