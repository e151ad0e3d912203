"""`heedful reward serve`: a process of its own, asked over HTTP as a run asks it; down for a moment in the middle of PPO."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command import assert_one_paragraph, heedful, start

from heedful.errors import RewardError
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.rewards.endpoint import EndpointReward
from heedful.rewards.service import BATCH_ANSWERS, MOST_WAITING, Batcher, RefusedError, read_request
from heedful.store import read_metrics

TOKEN = {"REWARD_TOKEN": "a-long-secret"}
FUNCTION = """
import time
def letters(prompts, completions):
    time.sleep(0.1)
    assert all(conversation[-1]["role"] == "user" for conversation in prompts)
    return [float(len(text) % 5) + text.count("e") for text in completions]
"""
CONFIG = """
[model]
source = {model!r}
dtype = "float32"
[prompts]
num_train = 8
num_heldout = 4
[ppo]
max_steps = 20
episodes = 4
max_new_tokens = 6
num_minibatches = 1
eval_every = 20
[ppo.lora]
rank = 4
layers = 2
[[reward.terms]]
source = {source!r}
{token}
"""


@contextmanager
def service(folder: Path, port: int = 0) -> Iterator[tuple[BaseProcess, str]]:
    """Its process, and the address that it tells."""
    (folder / "reward.py").write_text(FUNCTION)
    asked = ["reward", "serve", folder / "reward.py:letters", "--port", str(port), "--token-env", "REWARD_TOKEN"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TOKEN", TOKEN["REWARD_TOKEN"])
        process = start(*asked, folder=folder)
    try:
        found, end = None, time.monotonic() + 60
        while found is None:
            assert process.is_alive(), (folder / "stderr").read_text()
            assert time.monotonic() < end, "the service tells no address"
            time.sleep(0.05)
            said = folder / "stderr"
            found = re.search(r"at (http://\S+) until Ctrl-C", said.read_text()) if said.exists() else None
        yield process, found[1]
    finally:
        process.kill()
        process.join(10)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BaseProcess, str]]:
    with service(tmp_path_factory.mktemp("served")) as made:
        yield made


def answers(*texts: str) -> list[Answer]:
    return [Answer((Message(role="user", content="Hi."),), text, [], [], True) for text in texts]


def asking(url: str, token: str = TOKEN["REWARD_TOKEN"], **options: Any) -> EndpointReward:
    given = {"timeout_s": 30.0, "max_retries": 0, "backoff_s": 0.5, "batch_rows": 4} | options
    return EndpointReward(url, token=token, **given)


def test_a_reward_is_served(tmp_path: Path, served: tuple[BaseProcess, str]) -> None:
    _, url = served
    assert asking(url)(answers("see", "", "eel", "a", "bee")) == [5.0, 0.0, 5.0, 1.0, 5.0]
    with pytest.raises(RewardError, match="401"):
        asking(url, token="guessed")(answers("see"))
    for body in (
        b"{",
        b"[]",
        b'{"prompts": [], "completions": ["a"]}',
        b'{"prompts": [[{"role": "cat"}]], "completions": [1]}',
    ):
        reply = httpx2.post(url, content=body, headers={"Authorization": f"Bearer {TOKEN['REWARD_TOKEN']}"})
        assert reply.status_code == 400, body
        assert reply.json()["error"]


def test_a_run_goes_on_by_itself_when_its_reward_is_killed_and_comes_back(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default pauses. Its numbers and weights are those of a run that has the function itself."""
    (tmp_path / "first").mkdir()
    with service(tmp_path / "first") as (process, url):
        _killed_and_back(tiny, tmp_path, process, url, monkeypatch)


def _killed_and_back(tiny: Path, tmp_path: Path, process: BaseProcess, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TOKEN", TOKEN["REWARD_TOKEN"])
    (tmp_path / "reward.py").write_text(FUNCTION)
    terms = {"local": str(tmp_path / "reward.py:letters"), "remote": url}
    for name, source in terms.items():
        token = 'token_env = "REWARD_TOKEN"' if name == "remote" else ""
        (tmp_path / f"{name}.toml").write_text(CONFIG.format(model=str(tiny), source=source, token=token))

    def command(name: str) -> list[str | Path]:
        return ["align", "ppo", "--config", tmp_path / f"{name}.toml", "--output", tmp_path / name]

    again = Again(tmp_path, int(url.rsplit(":", 1)[1]))

    def kill() -> None:
        end = time.monotonic() + 60
        while len(read_metrics(tmp_path / "remote")) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        process.kill()
        again.start()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        done = heedful(*command("remote"), timeout=120)
    finally:
        again.stop()
        killer.join(20)
    assert done.returncode == 0, done.stderr
    assert "ConnectError" in done.stderr
    assert "trying again in 1 s" in done.stderr
    undisturbed = heedful(*command("local"), timeout=120)
    assert undisturbed.returncode == 0, undisturbed.stderr
    rows, expected = (read_metrics(tmp_path / name) for name in ("remote", "local"))
    assert sum(row.get("endpoint_retries", 0) for row in rows) >= 1
    assert rows[0]["endpoint_retries"] == 0
    assert [row["reward"] for row in rows] == [row["reward"] for row in expected]
    policies = [tmp_path / name / "ppo" / "policy" / "adapter_model.safetensors" for name in ("remote", "local")]
    assert policies[0].read_bytes() == policies[1].read_bytes()


class Again:
    """The service, started once more on its port a second later, until it is stopped."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder / "again", port
        self.folder.mkdir()
        self.over = threading.Event()
        self.ended = threading.Event()

    def start(self) -> None:
        time.sleep(1.0)
        with service(self.folder, self.port):
            self.over.wait(100)
        self.ended.set()

    def stop(self) -> None:
        self.over.set()
        self.ended.wait(10)


def test_an_open_port_needs_a_token(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(FUNCTION)
    failed = heedful("reward", "serve", tmp_path / "reward.py:letters", "--host", "0.0.0.0", "--port", "0")
    assert_one_paragraph(failed, "whoever reaches this machine could ask", "--token-env")


# The batcher


def test_requests_that_wait_are_scored_together_and_each_gets_its_own() -> None:
    sizes: list[int] = []
    free = threading.Event()

    def score(items: Sequence[Any]) -> list[float]:
        sizes.append(len(items))
        free.wait(10)
        return [float(text) for _, text in items]

    batcher = Batcher(score, deadline_s=20)
    found: dict[int, list[float]] = {}
    asks = [threading.Thread(target=lambda n=n: found.update({n: batcher([((), str(n)), ((), str(-n))])})) for n in range(1, 9)]
    end = time.monotonic() + 10
    asks[0].start()
    while not sizes and time.monotonic() < end:
        time.sleep(0.01)
    for ask in asks[1:]:
        ask.start()
    while len(batcher.waiting) < 7 and time.monotonic() < end:
        time.sleep(0.01)
    free.set()
    for ask in asks:
        ask.join(20)
    assert found == {n: [n, -n] for n in range(1, 9)}
    assert sizes[0] == 2
    assert sum(sizes) == 16
    assert len(sizes) < 8
    assert max(sizes) <= BATCH_ANSWERS


def test_a_reward_that_fails_is_told_and_the_next_request_is_answered() -> None:
    def score(items: Sequence[Any]) -> list[float]:
        return [1 / float(text) for _, text in items]

    batcher = Batcher(score, deadline_s=20)
    with pytest.raises(RefusedError, match="ZeroDivisionError"):
        batcher([((), "0")])
    assert batcher([((), "2")]) == [0.5]


def test_whoever_waits_too_long_or_brings_too_much_is_sent_away() -> None:
    free = threading.Event()
    batcher = Batcher(lambda items: [0.0 for _ in items if free.wait(10)], deadline_s=0.2)
    with pytest.raises(RefusedError, match=r"not scored within 0\.2 s"):
        batcher([((), "1")])
    with pytest.raises(RefusedError, match="wait already"):
        batcher([((), "1")] * (MOST_WAITING + 1))
    free.set()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\xff", "no JSON"),
        (b"{}", "expected"),
        (b'{"prompts": [[]], "completions": [3]}', "completions, at 0"),
        (b'{"prompts": [[{"role": "user"}]], "completions": ["a"]}', "content"),
        (b'{"prompts": [[]], "completions": []}', "1 prompts and 0 completions"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(body: bytes, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        read_request(body)
