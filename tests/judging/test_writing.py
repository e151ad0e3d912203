"""Writers and their journal: nothing is asked twice, whatever was killed, and a reply depends on its request alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chat_server
import pytest
import tiny_model
import torch

from heedful.config import FeedbackSection
from heedful.errors import RecordError
from heedful.judging.calls import Calls, Usage, key_of
from heedful.judging.feedback import local_feedback, open_feedback
from heedful.judging.judge import Judge, Pair
from heedful.judging.local import LocalWriter
from heedful.judging.writing import EMPTY, Finished, Journaled, Reply, Request
from heedful.models.policy import LanguageModel, load_language_model
from heedful.records import Message

NUM_CALLS = 1_000
CLIENT = """
import sys
from pathlib import Path
from heedful.endpoint import Endpoint
from heedful.judging.calls import Calls
from heedful.judging.chat import ChatServer, RemoteWriter
from heedful.judging.writing import Journaled, Request
from heedful.records import Message

assert "torch" not in sys.modules
url, calls, count = sys.argv[1] + "/chat/completions", Path(sys.argv[2]), int(sys.argv[3])
server = ChatServer(Endpoint(url, timeout_s=60, max_retries=2, backoff_s=1), "big")
writer = Journaled(RemoteWriter(server), Calls(calls))
requests = [Request((Message(role="user", content=f"request {n}"),), seed=n, max_new_tokens=9) for n in range(count)]
replies = writer(requests)
assert [reply.text for reply in replies] == [f"about request {n}, seed {n}" for n in range(count)]
print(writer.usage.calls, writer.usage.cached)
"""


def request(text: str, seed: int = 0, max_new_tokens: int = 12, temperature: float = 1.0) -> Request:
    return Request((Message(role="user", content=text),), seed, max_new_tokens, temperature)


class Counting:
    """A writer that keeps what it was asked, answers in the given chunks and can fail before one of them."""

    identity = "counting"

    def __init__(self, chunk: int = 2, fails_at: int = 99) -> None:
        self.usage = Usage()
        self.asked: list[Request] = []
        self.chunk, self.fails_at = chunk, fails_at

    def fits(self, request: Request) -> bool:
        return True

    def __call__(self, requests: Sequence[Request], finished: Finished | None = None) -> list[Reply]:
        found: dict[int, Reply] = {}
        for first in range(0, len(requests), self.chunk):
            if first >= self.fails_at:
                raise KeyboardInterrupt
            some = dict(list(enumerate(requests))[first : first + self.chunk])
            self.asked += some.values()
            replies = {n: self.reply(one) for n, one in some.items()}
            found |= replies
            if finished:
                finished(replies)
        return [found[n] for n in range(len(requests))]

    def reply(self, one: Request) -> Reply:
        text = one.messages[-1].content
        problem = {"empty": EMPTY, "down": "no answer"}.get(text, "")
        return Reply("" if problem else text.upper(), problem=problem)


def test_a_journal_answers_what_is_known_and_equal_requests_are_one_call(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    texts = ["a", "b", "a", "c", "d"]
    broken = Counting(fails_at=2)
    with pytest.raises(KeyboardInterrupt):
        Journaled(broken, Calls(path))([request(text) for text in texts])
    heard: dict[int, Reply] = {}
    rest = Counting()
    writer = Journaled(rest, Calls(path))
    replies = writer([request(text) for text in texts], heard.update)
    assert [reply.text for reply in replies] == ["A", "B", "A", "C", "D"]
    assert [one.messages[0].content for one in broken.asked] == ["a", "b"]
    assert [one.messages[0].content for one in rest.asked] == ["c", "d"]
    assert heard == dict(enumerate(replies))
    assert writer.usage.cached == 3


def test_whatever_a_reply_depends_on_is_in_its_key(tmp_path: Path) -> None:
    other = Counting()
    one = request("a")
    changed = [
        request("a", seed=1),
        request("a", max_new_tokens=13),
        request("a", temperature=0.5),
        Request(one.messages, 0, 12, 1.0, 0.5),
        Request((Message(role="system", content="Be kind."), *one.messages), 0, 12, 1.0),
        Request((Message(role="assistant", content="a"),), 0, 12, 1.0),
    ]
    calls = Calls(tmp_path / "calls.jsonl")
    Journaled(other, calls)([one, *changed, one])
    assert len(other.asked) == 7
    renamed = Counting()
    renamed.identity = "another model"
    Journaled(renamed, calls)([one])
    assert len(renamed.asked) == 1


def test_an_empty_reply_is_kept_and_a_request_that_got_none_is_asked_again(tmp_path: Path) -> None:
    for expected in (["a", "empty", "down"], ["down"]):
        inner = Counting()
        replies = Journaled(inner, Calls(tmp_path / "calls.jsonl"))([request(text) for text in ("a", "empty", "down")])
        assert [one.messages[0].content for one in inner.asked] == expected
        assert [reply.valid for reply in replies] == [True, False, False]


def test_a_cut_line_is_dropped_and_a_broken_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    calls = Calls(path)
    calls.add({key_of("a"): 1.5, key_of("b"): {"text": "x"}})
    calls.add({key_of("a"): 2.5})
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert Calls(path).values == {key_of("a"): 1.5}
    assert len(whole.splitlines()) == 2, "the first value of a key stays, and no other is written"
    path.write_bytes(b'{"key": 3, "value": 1}\n')
    with pytest.raises(RecordError, match=r"calls\.jsonl:1: Call field 'key'"):
        Calls(path)


def test_a_thousand_calls_go_on_after_kill_9_and_none_that_was_finished_is_repeated(tmp_path: Path) -> None:
    """The server counts. Killed three times: what was on its way may be asked again, what is in the journal never."""
    support = str(Path(chat_server.__file__).parent)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    serving = subprocess.Popen(
        [sys.executable, "-m", "chat_server", "0.005"], cwd=support, stdout=subprocess.PIPE, text=True, env=environment
    )
    calls = tmp_path / "calls.jsonl"
    try:
        assert serving.stdout is not None
        url = f"http://127.0.0.1:{int(serving.stdout.readline())}/v1"
        command = [sys.executable, "-c", CLIENT, url, str(calls), str(NUM_CALLS)]
        kept: set[str] = set()
        for share in (0.2, 0.5):
            client = subprocess.Popen(command, env=environment)
            wait_until(lambda: lines(calls) >= share * NUM_CALLS, client)  # noqa: B023
            os.kill(client.pid, signal.SIGKILL)
            assert client.wait() == -signal.SIGKILL
            before = Calls(calls).values
            assert kept <= set(before)
            assert share * NUM_CALLS <= len(before) < NUM_CALLS
            kept = set(before)
            finished = [f"request {n}" for n in range(NUM_CALLS) if key_of(*parts(url, n)) in before]
            assert len(finished) == len(before)
            asked_before = asked(url)
            repeated_at_most = sum(asked_before.values()) - len(finished)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(NUM_CALLS - len(kept)), str(len(kept))]
        now = asked(url)
        assert {text for text in finished if now[text] != asked_before[text]} == set(), "finished, and asked again"
        assert len(now) == NUM_CALLS
        assert sum(now.values()) == NUM_CALLS + repeated_at_most
        assert repeated_at_most <= 2 * 16 * 2, "what was in flight at two kills"
    finally:
        serving.kill()
        serving.wait()


def parts(url: str, n: int) -> tuple[str, dict[str, Any]]:
    """What the key of the n-th request is made of, written out by hand."""
    told = {"messages": [{"role": "user", "content": f"request {n}"}], "seed": n, "max_new_tokens": 9}
    return f"{url}/chat/completions big", told | {"temperature": 0.7, "top_p": 1.0}


def asked(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return dict(json.load(reply)["asked"])


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(reached: Any, process: subprocess.Popen[bytes]) -> None:
    while not reached():
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.002)


# A local model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tiny_model.make(tmp_path_factory.mktemp("writer") / "tiny")
    return load_language_model(str(folder), dtype=torch.float32, device=torch.device("cpu"))


def writer(model: LanguageModel, rows: int = 4) -> LocalWriter:
    return LocalWriter(model, None, identity="tiny", batch_rows=rows)


REQUESTS = [request(f"Tell me {n} things about {'very ' * (n % 5)}old houses.", seed=n) for n in range(10)]


def test_a_reply_depends_on_its_request_alone(tiny: LanguageModel) -> None:
    together = writer(tiny, rows=8)(REQUESTS)
    alone = [writer(tiny)([one])[0] for one in REQUESTS]
    turned = writer(tiny, rows=3)(REQUESTS[::-1])[::-1]
    assert together == alone == turned
    assert len({reply.text for reply in together}) > 5
    assert {reply.finish for reply in together} == {"stop", "length"}
    again = writer(tiny)([Request(one.messages, one.seed + 100, 12, 1.0) for one in REQUESTS])
    assert again != together, "the seed is what it is drawn from"


def test_settings_may_differ_from_request_to_request(tiny: LanguageModel) -> None:
    greedy = [Request(one.messages, one.seed, 5, 0.0) for one in REQUESTS[:3]]
    mixed = writer(tiny)([REQUESTS[0], greedy[0], REQUESTS[1], greedy[1], greedy[2]])
    assert [mixed[1], *mixed[3:]] == writer(tiny)(greedy)
    assert [mixed[0], mixed[2]] == writer(tiny)(REQUESTS[:2])
    reseeded = writer(tiny)([Request(one.messages, 77, 5, 0.0) for one in greedy])
    assert reseeded == writer(tiny)(greedy), "at temperature 0 nothing is drawn"


def test_a_request_longer_than_the_context_is_invalid_and_named(tiny: LanguageModel) -> None:
    long = request("The critique goes on and on. " * 40)
    own = writer(tiny)
    heard: dict[int, Reply] = {}
    first, second, third = own([REQUESTS[0], long, REQUESTS[1]], heard.update)
    assert first.valid
    assert third.valid
    assert not second.valid
    assert "tokens ('The critique goes on" in second.problem
    assert "leaves no room for an answer of 12" in second.problem
    assert second.problem.endswith("reads 256")
    assert (own.usage.calls, own.usage.invalid) == (2, 1)
    assert heard == {0: first, 1: second, 2: third}
    assert [own.fits(one) for one in (REQUESTS[0], long)] == [True, False]
    most = 256 - len(tiny.chat.prompt_ids(REQUESTS[0].messages))
    assert own.fits(Request(REQUESTS[0].messages, 0, most))
    assert not own.fits(Request(REQUESTS[0].messages, 0, most + 1))


def test_an_interrupted_local_job_goes_on_where_it_stopped(tiny: LanguageModel, tmp_path: Path) -> None:
    whole = writer(tiny)(REQUESTS)

    class Killed(BaseException):
        pass

    def stops(replies: dict[int, Reply]) -> None:
        if 9 in replies or 4 in replies:
            raise Killed

    first = local_feedback(tiny, None, name="tiny", identity="a", batch_rows=4, calls=Calls(tmp_path / "calls.jsonl"))
    with pytest.raises(Killed):
        first.writer(REQUESTS, stops)
    done = first.usage.calls
    assert 0 < done < len(REQUESTS)
    again = local_feedback(tiny, None, name="tiny", identity="a", batch_rows=4, calls=Calls(tmp_path / "calls.jsonl"))
    assert again.writer(REQUESTS) == whole
    assert (again.usage.cached, again.usage.calls) == (done, len(REQUESTS) - done)


def test_a_folder_is_opened_and_its_letters_are_kept(tmp_path: Path) -> None:
    folder = tiny_model.make(tmp_path / "tiny", context=512)
    section = FeedbackSection(source=str(folder))
    asked_of = (Message(role="user", content="Which is better?"),)
    pairs = [Pair(asked_of, "one", "two"), Pair(asked_of, "three.", "Four?")]
    plain = Judge("tiny", open_feedback(section).letters)(pairs)
    first = open_feedback(section, tmp_path / "calls.jsonl")
    assert Judge("tiny", first.letters)(pairs) == plain
    second = open_feedback(section, tmp_path / "calls.jsonl")
    assert Judge("tiny", second.letters)(pairs) == plain
    assert (first.usage.cached, second.usage.cached) == (0, 5)
    (tmp_path / "tiny" / "note.txt").write_text("another model now")
    assert open_feedback(section).writer.identity != second.writer.identity
