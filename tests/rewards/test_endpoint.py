"""Rewards over HTTP, against a real server in a thread: what passes is tried again, what does not stops with one paragraph."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from json_server import Reply, server

from heedful.config import RewardTermSection
from heedful.endpoint import token_in
from heedful.errors import ConfigError, RewardError
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.rewards.endpoint import EndpointReward

ANSWERS = [Answer((Message(role="user", content=f"Question {i}"),), "x" * i, [], []) for i in range(3)]

SETTING = "reward.terms.token_env"


def lengths(body: Any) -> tuple[int, str]:
    return 200, json.dumps({"rewards": [len(text) for text in body["completions"]]})


def slow(body: Any) -> tuple[int, str]:
    time.sleep(1.0)
    return lengths(body)


def endpoint(url: str, **changed: Any) -> tuple[EndpointReward, list[float]]:
    """A reward that notes its pauses instead of sleeping."""
    pauses: list[float] = []
    given = {"timeout_s": 10.0, "max_retries": 3, "backoff_s": 0.5, "batch_rows": 64} | changed
    return EndpointReward(url, sleep=pauses.append, **given), pauses


def test_prompts_and_completions_go_out_and_rewards_come_back() -> None:
    with server([lengths]) as (url, seen):
        reward, pauses = endpoint(url, token="secret")
        assert reward(ANSWERS) == [0.0, 1.0, 2.0]
    body = seen[0]["body"]
    assert body["prompts"][2] == [{"role": "user", "content": "Question 2"}]
    assert body["completions"] == ["", "x", "xx"]
    assert seen[0]["path"] == "/score"
    assert seen[0]["headers"]["Authorization"] == "Bearer secret"
    assert pauses == []
    assert reward.measured == {"endpoint_retries": 0.0}


def test_a_bare_list_is_taken_and_batches_are_joined_in_order() -> None:
    def bare(body: Any) -> tuple[int, str]:
        return 200, json.dumps([len(text) for text in body["completions"]])

    with server([bare]) as (url, seen):
        reward, _ = endpoint(url, batch_rows=2)
        assert reward(ANSWERS) == [0.0, 1.0, 2.0]
    assert [len(request["body"]["completions"]) for request in seen] == [2, 1]


PASSING: dict[str, Reply] = {
    "text instead of JSON": (200, "I would say nine out of ten."),
    "text instead of numbers": (200, '{"rewards": ["good", "bad", "fine"]}'),
    "nan": (200, '{"rewards": [0.5, NaN, 0.5]}'),
    "null": (200, '{"rewards": [0.5, null, 0.5]}'),
    "wrong count": (200, '{"rewards": [0.5, 0.5]}'),
    "no rewards": (200, '{"scores": [1, 2, 3]}'),
    "server error": (503, "busy"),
    "too many requests": (429, "slow down"),
    "endless": (200, "[" + "0," * 3_000_000),
}


@pytest.mark.parametrize("wrong", PASSING.values(), ids=PASSING.keys())
def test_recovers_on_the_third_try(wrong: Reply, capsys: pytest.CaptureFixture[str]) -> None:
    with server([wrong, wrong, lengths]) as (url, seen):
        reward, pauses = endpoint(url)
        assert reward(ANSWERS) == [0.0, 1.0, 2.0]
    assert len(seen) == 3
    assert pauses == [0.5, 1.0], "pauses double"
    assert reward.measured == {"endpoint_retries": 2.0}
    assert "trying again in 0.5 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("text instead of numbers", "gave 'good' for the answer '' to 'Question 0'"),
        ("nan", "gave nan for the answer 'x' to 'Question 1'; expected a finite number"),
        ("wrong count", "gave 2 rewards for 3 answers"),
        ("text instead of JSON", "the reply is no JSON: 'I would say nine out of ten.'"),
        ("server error", "the server answered 503 'busy'"),
    ],
)
def test_gives_up_after_its_tries_and_says_how_to_go_on(wrong: str, said: str) -> None:
    with server([PASSING[wrong]]) as (url, seen):
        reward, pauses = endpoint(url, max_retries=2)
        with pytest.raises(RewardError) as raised:
            reward(ANSWERS)
    assert len(seen) == 3
    assert pauses == [0.5, 1.0]
    message = str(raised.value)
    assert said in message
    assert "try 3 of 3. Nothing that was learned is lost" in message
    assert "the same command again" in message
    assert "\n" not in message


def test_time_out_is_of_the_whole_request() -> None:
    with server([slow]) as (url, _):
        reward, _ = endpoint(url, timeout_s=0.2, max_retries=1)
        with pytest.raises(RewardError, match=r"no reply within 0\.2 s"):
            reward(ANSWERS)
    with server([slow, lengths]) as (url, _):
        assert endpoint(url, timeout_s=0.3)[0](ANSWERS) == [0.0, 1.0, 2.0]


def test_a_reply_that_drips_is_cut_off() -> None:
    """Each byte comes in time; the whole does not."""

    class Dripping(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(50):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.05)
            except OSError:
                pass

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    try:
        reward, _ = endpoint(f"http://127.0.0.1:{http.server_address[1]}/", timeout_s=0.3, max_retries=0)
        clock = time.monotonic()
        with pytest.raises(RewardError, match=r"was not whole within 0\.3 s"):
            reward(ANSWERS)
        assert time.monotonic() - clock < 1.5
    finally:
        http.shutdown()
        http.server_close()


def test_a_wrong_request_stops_at_once() -> None:
    with server([(404, "no such page")]) as (url, seen):
        reward, pauses = endpoint(url)
        with pytest.raises(RewardError, match="answered 404 'no such page', so it takes the request for a wrong one"):
            reward(ANSWERS)
    assert len(seen) == 1
    assert pauses == []


def test_nobody_listens() -> None:
    reward, pauses = endpoint("http://127.0.0.1:9/", max_retries=8, backoff_s=10.0)
    with pytest.raises(RewardError, match="ConnectError"):
        reward(ANSWERS)
    assert pauses == [10, 20, 40, 60, 60, 60, 60, 60], "pauses double up to a minute"


def test_by_default_a_reward_may_be_down_for_a_minute() -> None:
    term = RewardTermSection(source="http://127.0.0.1:9/")
    reward, pauses = endpoint(term.source, max_retries=term.max_retries, backoff_s=term.backoff_s)
    with pytest.raises(RewardError, match=f"try {term.max_retries + 1} of {term.max_retries + 1}"):
        reward(ANSWERS)
    assert sum(pauses) > 60


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_REWARD_TOKEN", "abc")
    assert token_in(RewardTermSection(source="http://x", token_env="MY_REWARD_TOKEN").token_env, SETTING) == "abc"
    assert token_in("", SETTING) == ""
    monkeypatch.delenv("MY_REWARD_TOKEN")
    with pytest.raises(
        ConfigError, match=r"reward\.terms\.token_env = 'MY_REWARD_TOKEN': there is no such environment variable"
    ):
        token_in("MY_REWARD_TOKEN", SETTING)
