"""A judge behind an OpenAI-compatible address, against a real server: probabilities, letters, and what is neither."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from json_server import Reply, server

from heedful.endpoint import Endpoint
from heedful.errors import DataError
from heedful.judging.chat import ChatServer
from heedful.judging.judge import question
from heedful.judging.remote import RemoteLetters
from heedful.records import Message

QUESTIONS = [question((Message(role="user", content=f"What is {n}?"),), "One.", "Two.", "helpful") for n in range(12)]


def chat(text: str, logprobs: Any = None) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": logprobs}
    return json.dumps({"object": "chat.completion", "choices": [choice]})


def place(token: str, **likeliest: float) -> dict[str, Any]:
    rows = [{"token": text.replace("_", " "), "logprob": math.log(p)} for text, p in likeliest.items()]
    return {"token": token, "logprob": next((r["logprob"] for r in rows if r["token"] == token), -1.0), "top_logprobs": rows}


def letters(url: str, **changed: Any) -> RemoteLetters:
    given: dict[str, Any] = {"timeout_s": 10.0, "max_retries": 2, "backoff_s": 0.5, "sleep": lambda _: None} | changed
    return RemoteLetters(ChatServer(Endpoint(url, **given), "big"))


def asks(replies: list[Reply], number: int = 1) -> tuple[list[float], list[Any]]:
    with server(replies) as (url, seen):
        return list(letters(url)(QUESTIONS[:number])), seen


def test_probabilities_of_both_letters_are_added_up_over_their_spellings() -> None:
    reply = chat("B", {"content": [place("B", B=0.5, A=0.2, _B=0.1, _A=0.05, So=0.01)]})
    (lean,), seen = asks([(200, reply)])
    assert lean == pytest.approx(math.log(0.25 / 0.6))
    body = seen[0]["body"]
    assert (body["model"], body["temperature"], body["logprobs"]) == ("big", 0, True)
    assert body["messages"] == [QUESTIONS[0][0].model_dump()]


def test_the_letter_is_read_where_it_stands() -> None:
    reply = chat("Answer: A", {"content": [place("Answer", Answer=0.9, B=0.1), place(":"), place(" A", _A=0.8, _B=0.2)]})
    assert asks([(200, reply)])[0] == [pytest.approx(math.log(4))]


def test_a_letter_that_is_not_among_the_likeliest_gets_the_most_it_can_have() -> None:
    assert asks([(200, chat("A", {"content": [place("A", A=0.9, The=0.06, So=0.02)]}))])[0] == [pytest.approx(math.log(45))]
    alone = chat("A", {"content": [{"token": "A", "logprob": 0.0, "top_logprobs": []}]})
    assert asks([(200, alone)])[0][0] > 30, "nothing is left for B"


@pytest.mark.parametrize("text", ["A", " A.", "(A)", "**A**", "Answer: A", "The better answer is A.", "A is better.", "a"])
def test_without_probabilities_the_letter_counts(text: str) -> None:
    leans, seen = asks([(200, chat(text))], 2)
    assert leans == [math.inf, math.inf]
    assert "logprobs" in seen[0]["body"]
    assert "logprobs" not in seen[-1]["body"], "a server that gives none is not asked for them again"


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_logprobs_is_asked_for_letters(status: int) -> None:
    def reply(body: Any) -> tuple[int, str]:
        return (status, "logprobs is not supported") if "logprobs" in body else (200, chat("B"))

    leans, seen = asks([reply], 3)
    assert leans == [-math.inf] * 3
    assert sum("logprobs" in request["body"] for request in seen) == 1


def test_a_first_question_that_is_too_long_does_not_hide_that_the_server_gives_probabilities() -> None:
    def reply(body: Any) -> tuple[int, str]:
        if "What is 0?" in body["messages"][0]["content"]:
            return 400, "longer than the context"
        return 200, chat("A", {"content": [place("A", A=0.8, B=0.2)]} if body.get("logprobs") else None)

    with server([reply]) as (url, _):
        judge = letters(url)
        judge.strict = False
        first, *others = judge(QUESTIONS[:3])
    assert math.isnan(first)
    assert others == [pytest.approx(math.log(4))] * 2


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (chat("A better answer would be longer."), "names neither A nor B: 'A better answer"),
        (chat("Both are fine."), "names neither A nor B"),
        (chat(""), "names neither A nor B: ''"),
        (chat("Cats."), "names neither"),
        ('{"choices": []}', "no chat completion with a text"),
        ('{"choices": [{"message": {"content": null}}]}', "no chat completion with a text"),
        ("Hello", "is no JSON"),
        (chat("A", {"content": [place("Well", Well=0.9)]}), "lacks the letter A"),
        (chat("A", {"content": [{"token": "A", "logprob": "high"}]}), "'logprobs' cannot be read"),
        (chat("A", {"content": [{"token": "A", "logprob": 0.5}]}), "what is no log-probability"),
    ],
)
def test_what_names_no_letter_is_asked_again_and_is_an_error_in_the_end(reply: str, said: str) -> None:
    good = chat("B", {"content": [place("B", B=0.75, A=0.25)]}) if "logprobs" in reply and 'content": [' in reply else chat("B")
    with server([(200, reply)]) as (url, _), pytest.raises(DataError) as raised:
        letters(url)(QUESTIONS[:1])
    assert said in str(raised.value)
    assert "try 3 of 3; nothing was counted" in str(raised.value)
    leans, _ = asks([(200, good), (200, reply), (200, good)], 2)
    assert leans[0] == leans[1] < 0


def test_a_wrong_address_or_token_stops_at_once() -> None:
    with (
        server([(401, "no such token")]) as (url, seen),
        pytest.raises(DataError, match=r"the model big: .*answered 401 'no such"),
    ):
        letters(url)(QUESTIONS)
    assert len(seen) == 1


def test_many_questions_keep_their_order() -> None:
    def reply(body: Any) -> tuple[int, str]:
        number = int(body["messages"][0]["content"].split("What is ")[1].split("?")[0])
        return 200, chat("A", {"content": [place("A", A=0.5, B=0.5 / (number + 1))]})

    leans, _ = asks([reply], 12)
    assert leans == [pytest.approx(math.log(n + 1)) for n in range(12)]
