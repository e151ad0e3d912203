"""A feedback model behind an OpenAI-compatible address, against a real server: requests in flight, limits, failures, tokens."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, Chats, chat_server, completion, echo

from heedful.config import FeedbackSection
from heedful.errors import ConfigError, DataError
from heedful.judging.chat import GIVE_UP
from heedful.judging.feedback import Feedback, open_feedback
from heedful.judging.judge import Judge, Pair
from heedful.judging.writing import Reply, Request
from heedful.records import Message

ASKED = (Message(role="user", content="Which is better?"),)


def request(text: str, seed: int = 0) -> Request:
    return Request((Message(role="user", content=text),), seed=seed, max_new_tokens=9, temperature=0.5, top_p=0.9)


def feedback(url: str, calls: Path | None = None, **changed: Any) -> Feedback:
    given: dict[str, Any] = {"max_retries": 1, "backoff_s": 0.0, "timeout_s": 10.0} | changed
    return open_feedback(FeedbackSection(source=url, model="big", **given), calls)


def replies_of(answer: Answer, texts: list[str], **changed: Any) -> tuple[list[Reply], Feedback, Chats]:
    with chat_server(answer) as (url, seen):
        opened = feedback(url, **changed)
        return opened.writer([request(text) for text in texts]), opened, seen


def test_a_request_is_sent_with_its_settings_and_replies_keep_their_order() -> None:
    def slow_first(body: dict[str, Any]) -> tuple[int, Any]:
        if body["messages"][-1]["content"] == "0":
            threading.Event().wait(0.1)
        return echo(body)

    replies, opened, seen = replies_of(slow_first, [str(n) for n in range(40)])
    assert [reply.text for reply in replies] == [f"about {n}, seed 0" for n in range(40)]
    body = next(body for body in seen.bodies if body["messages"][0]["content"] == "3")
    assert body == {
        "path": "/v1/chat/completions",
        "model": "big",
        "messages": [{"role": "user", "content": "3"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 0,
        "max_tokens": 9,
    }
    assert (opened.usage.calls, opened.usage.prompt_tokens, opened.usage.completion_tokens) == (40, 280, 120)


@pytest.mark.parametrize("in_flight", [1, 16])
def test_so_many_requests_are_in_flight(in_flight: int) -> None:
    """Sixteen wait for each other before any is answered: fewer in flight would never be answered; more are never seen."""
    gate = threading.Barrier(in_flight)

    def together(body: dict[str, Any]) -> tuple[int, Any]:
        gate.wait(timeout=20)
        return echo(body)

    replies, _, seen = replies_of(together, [str(n) for n in range(3 * in_flight)], in_flight=in_flight, timeout_s=30.0)
    assert all(reply.valid for reply in replies)
    assert seen.most == in_flight


def test_no_more_requests_begin_in_a_minute_than_allowed() -> None:
    fails = iter([500, 200, 200, 200, 200])

    def once(body: dict[str, Any]) -> tuple[int, Any]:
        return next(fails), completion("yes")

    replies, opened, seen = replies_of(once, list("abcd"), requests_a_minute=600)
    assert all(reply.valid for reply in replies)
    assert opened.usage.retries == 1
    pauses = [later - earlier for earlier, later in zip(seen.times, seen.times[1:], strict=False)]
    # A tenth of a second apart when sent; one that was held up on its way may come nearer to the next.
    assert sum(pauses) > 0.35
    assert len(pauses) == 4, "the retry waits its turn, too"


def test_cost_and_tokens_are_counted_for_every_reply_also_for_one_that_is_asked_for_again() -> None:
    told = {"a": [completion(None), completion("yes")], "b": [completion("yes", usage=None)]}

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, told[body["messages"][0]["content"]].pop(0)

    _, opened, _ = replies_of(answer, ["a", "b"], price_prompt=2.0, price_completion=10.0)
    usage = opened.usage
    assert (usage.calls, usage.retries, usage.uncounted) == (3, 1, 1)
    assert (usage.prompt_tokens, usage.completion_tokens) == (14, 6)
    assert usage.cost == pytest.approx((14 * 2 + 6 * 10) / 1e6)
    assert usage.as_dict()["cost"] == usage.cost


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ((200, completion("  ")), "the reply is empty"),
        ((500, "down"), "answered 500 'down'. That was try 2 of 2"),
        ((400, "context length exceeded"), "answered 400 'context length"),
        ((200, "Hello"), "is no JSON"),
        ((200, completion(None)), "no chat completion with a text"),
        ((200, {"choices": [{"message": {"content": 7}}]}), "no chat completion with a text"),
        ((200, []), "no chat completion with a text"),
    ],
)
def test_one_that_cannot_be_used_is_invalid_and_counted_and_the_others_go_on(reply: tuple[int, Any], problem: str) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        return reply if body["messages"][0]["content"] == "bad" else echo(body)

    (first, bad, last), opened, _ = replies_of(answer, ["a", "bad", "b"])
    assert first.valid
    assert last.valid
    assert (bad.valid, bad.text) == (False, "")
    assert problem in bad.problem
    assert opened.usage.invalid == 1


def test_an_answer_that_is_too_slow_is_invalid() -> None:
    def slow(body: dict[str, Any]) -> tuple[int, Any]:
        if body["messages"][0]["content"] == "slow":
            threading.Event().wait(1.0)
        return echo(body)

    (fast, late), opened, _ = replies_of(slow, ["fast", "slow"], timeout_s=0.3, max_retries=0)
    assert fast.valid
    assert "no reply within 0.3 s" in late.problem
    assert opened.usage.invalid == 1


def test_a_server_that_only_fails_is_given_up() -> None:
    with chat_server(lambda _: (500, "down")) as (url, seen), pytest.raises(DataError, match=r"32 requests in a row"):
        feedback(url, max_retries=0).writer([request(str(n)) for n in range(500)])
    assert GIVE_UP <= len(seen.bodies) < 100


def test_an_address_that_nobody_was_ever_heard_from_is_given_up_soon() -> None:
    """With 16 in flight, each with all its tries, 32 failures would be two rounds of minutes."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nobody.listen()  # accepts, and says nothing
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        begin = time.monotonic()
        with pytest.raises(DataError, match=r"no reply within 0\.2 s.*3 requests in a row.*when it answers"):
            feedback(url, timeout_s=0.2, max_retries=1, in_flight=1).writer([request(str(n)) for n in range(500)])
    assert time.monotonic() - begin < 3 * 2 * 0.2 + 2


def test_a_judge_that_never_names_a_letter_is_given_up_too() -> None:
    pairs = [Pair(ASKED, str(n), "two") for n in range(100)]
    with chat_server(named("I would rather not say.")) as (url, seen), pytest.raises(DataError, match=r"32 requests in a row"):
        Judge("big", feedback(url, max_retries=0).letters)(pairs)
    assert len(seen.bodies) == GIVE_UP


def test_a_server_that_answers_may_call_many_requests_wrong() -> None:
    def short(body: dict[str, Any]) -> tuple[int, Any]:
        return (400, "too long") if "long" in body["messages"][0]["content"] else echo(body)

    replies, opened, _ = replies_of(short, ["a", *(f"long {n}" for n in range(2 * GIVE_UP)), "b"])
    assert replies[0].valid
    assert replies[-1].valid
    assert opened.usage.invalid == 2 * GIVE_UP
    with pytest.raises(DataError, match=r"32 requests in a row\. Then run"):
        replies_of(short, [f"long {n}" for n in range(2 * GIVE_UP)])


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_token_or_model_ends_the_work_at_once(status: int) -> None:
    with (
        chat_server(lambda _: (status, "no such")) as (url, seen),
        pytest.raises(DataError, match=rf"the model big: .*answered {status} 'no such'"),
    ):
        feedback(url).writer([request(str(n)) for n in range(500)])
    assert len(seen.bodies) <= 32


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="say with 'model'"):
        FeedbackSection(source="https://example.org/v1")
    with pytest.raises(ValueError, match="belong to an address"):
        FeedbackSection(source="smollm2-135m", model="big")
    with pytest.raises(ConfigError, match="--token-env = 'NO_SUCH_TOKEN'"):
        open_feedback(FeedbackSection(source="http://127.0.0.1:9/v1", model="big", token_env="NO_SUCH_TOKEN"))


def named(letter: str) -> Answer:
    return lambda _: (200, completion(letter))


@pytest.mark.parametrize("answer", [named("Both are fine."), named(""), lambda _: (500, "down")])
def test_a_judge_without_a_letter_has_no_opinion_which_is_no_tie(answer: Answer) -> None:
    def mixed(body: dict[str, Any]) -> tuple[int, Any]:
        return answer(body) if "odd" in body["messages"][0]["content"] else named("B")(body)

    pairs = [Pair(ASKED, "one", "two"), Pair(ASKED, "odd", "two"), Pair(ASKED, "three", "four")]
    with chat_server(mixed) as (url, _):
        opened = feedback(url, max_retries=0)
        first, odd, last = Judge("big", opened.letters)(pairs)
    assert (first.valid, odd.valid, last.valid) == (True, False, True)
    assert odd.score != 0.5
    assert not odd.consistent
    assert opened.usage.invalid == 2, "both orders"


def test_letters_that_are_known_are_not_asked_for_again(tmp_path: Path) -> None:
    answers = {"hard": completion("A"), "none": completion("So so.")}
    pairs = [Pair(ASKED, "hard", "two"), Pair(ASKED, "none", "two"), Pair(ASKED, "hard", "three")]

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, answers["none" if "none" in body["messages"][0]["content"] else "hard"]

    with chat_server(answer) as (url, seen):
        first = Judge("big", feedback(url, tmp_path / "calls.jsonl", max_retries=0).letters)(pairs)
        count = len(seen.bodies)
        again = feedback(url, tmp_path / "calls.jsonl", max_retries=0)
        second = Judge("big", again.letters)(pairs)
    assert [(one.as_a, one.as_b) for one in second[::2]] == [(one.as_a, one.as_b) for one in first[::2]] == [(1, 0)] * 2
    assert not second[1].valid
    assert len(seen.bodies) - count == 2, "only what could not be had"
    assert again.usage.cached == 4
