"""`heedful reward serve`: a process of its own, asked over HTTP as a run asks it; down for a moment in the middle of PPO."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gang_work
import httpx2
import pytest
import torch
from command import HEEDFUL, assert_one_paragraph, heedful

from heedful.errors import RewardError
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.rewards.endpoint import EndpointReward
from heedful.rewards.service import BATCH_ANSWERS, MOST_WAITING, Batcher, RefusedError, read_request

TOKEN = {"REWARD_TOKEN": "a-long-secret"}
FUNCTION = """
import time
def letters(prompts, completions):
    assert all(conversation[-1]["role"] == "user" for conversation in prompts)
    return [float(len(text) % 5) + text.count("e") for text in completions]
"""


@contextmanager
def service(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    (folder / "reward.py").write_text(FUNCTION)
    command = [*HEEDFUL, "reward", "serve", str(folder / "reward.py:letters"), "--port", str(port)]
    environment = os.environ | TOKEN | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [*command, "--token-env", "REWARD_TOKEN"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stderr
    stuck = threading.Timer(100, process.kill)
    stuck.start()
    try:
        line = process.stderr.readline()
        found = re.search(r"at (http://\S+) until Ctrl-C", line)
        assert found, line + process.stderr.read()
        yield process, found[1]
    finally:
        stuck.cancel()
        process.kill()
        process.communicate()


def answers(*texts: str) -> list[Answer]:
    return [Answer((Message(role="user", content="Hi."),), text, [], [], True) for text in texts]


def asking(url: str, token: str = TOKEN["REWARD_TOKEN"], **options: Any) -> EndpointReward:
    given = {"timeout_s": 30.0, "max_retries": 0, "backoff_s": 0.5, "batch_rows": 4} | options
    return EndpointReward(url, token=token, **given)


def test_a_reward_is_served_and_survives_being_killed_in_the_middle_of_ppo(tiny: Path, tmp_path: Path) -> None:
    """Learned with rewards of a service that is killed and comes back: the weights are those of the function itself."""
    with service(tmp_path) as (process, url):
        port = int(url.rsplit(":", 1)[1])
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
        local, remote = gang_work.online(str(tiny), "ppo"), gang_work.online(str(tiny), "ppo")
        reward = asking(url, max_retries=40)
        asked = 0

        def killing(texts: Sequence[Answer]) -> list[float]:
            nonlocal asked
            asked += 1
            if asked == 2:
                process.kill()
                process.wait(timeout=10)
                threading.Thread(target=again.start).start()
            return reward(texts)

        again = Again(tmp_path, port)
        try:
            local.reward, remote.reward = gang_work.letters, killing
            for step in range(3):
                one, other = local.step(step), remote.step(step)
                assert one["reward"] == other["reward"]
        finally:
            again.stop()
        assert reward.endpoint.num_retries > 0
        pairs = zip(local.optimiser.tensors, remote.optimiser.tensors, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


class Again:
    """The service, started once more on its port a second later, until it is stopped."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
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
    for ask in asks:
        ask.start()
    end = time.monotonic() + 10
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
