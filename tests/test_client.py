"""The Python client: what it tries again, what it says of failures, and that it keeps its token to itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from labelled_project import COMPLETIONS, PROMPTS

from heedful import exchange
from heedful.client import TOKEN, LabelServer, ServerError
from heedful.errors import ConfigError
from heedful.records import Judgement

SECRET = "heedful_Jx3-secret_0"
URL = "https://labels.example.org"
Reply = httpx2.Response | Exception


def server(*replies: Reply, asked: list[httpx2.Request] | None = None, pauses: list[float] | None = None) -> LabelServer:
    """One that answers with these in turn. asked, pauses: are filled."""
    waiting = list(replies)

    def answer(request: httpx2.Request) -> httpx2.Response:
        if asked is not None:
            asked.append(request)
        reply = waiting.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    found = LabelServer(URL, SECRET, sleep=(pauses if pauses is not None else []).append)
    found.client = httpx2.Client(transport=httpx2.MockTransport(answer), headers=found.client.headers)
    return found


def judgement(number: int, note: str = "") -> Judgement:
    return Judgement(
        id=f"j{number}",
        prompt_id="p",
        labeler="ada",
        source="human",
        criterion="helpfulness",
        ranks={"a": 1, "b": 2},
        created_at="2026-01-01T00:00:00Z",
        note=note or None,
    )


def ndjson(*judgements: Judgement) -> httpx2.Response:
    text = "".join(json.dumps(one.model_dump(mode="json"), ensure_ascii=False) + "\n" for one in judgements)
    return httpx2.Response(200, text=text)


def test_what_reads_is_tried_again_with_growing_pauses() -> None:
    asked: list[httpx2.Request] = []
    pauses: list[float] = []
    lost = [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow"), httpx2.ReadError("cut")]
    assert server(*lost, httpx2.Response(200, json=[]), asked=asked, pauses=pauses).projects() == []
    assert pauses == [1.0, 2.0, 4.0]
    assert {request.headers["Authorization"] for request in asked} == {f"Bearer {SECRET}"}
    with pytest.raises(ServerError, match=r"ConnectError: refused.*check that the server runs") as failed:
        server(*[httpx2.ConnectError("refused")] * 4).projects()
    assert failed.value.status is None


def test_what_writes_is_sent_once() -> None:
    asked: list[httpx2.Request] = []
    with pytest.raises(ServerError, match="look before you do it again"):
        server(httpx2.ReadTimeout("slow"), asked=asked).pause("house")
    assert len(asked) == 1


def test_an_answer_is_not_asked_for_again() -> None:
    asked: list[httpx2.Request] = []
    with pytest.raises(ServerError) as failed:
        server(httpx2.Response(500, text="<h1>Server Error</h1>"), asked=asked).projects()
    assert failed.value.status == 500
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (httpx2.Response(404, json={"detail": "'x' is none of yours"}), "404: 'x' is none of yours; projects()"),
        (httpx2.Response(401, json={"detail": "send a token"}), f"401: send a token; hand over another token, or set {TOKEN}"),
        (httpx2.Response(422, json={"detail": "mend it"}), "422: mend it"),
        (httpx2.Response(502, text="<h1>Bad Gateway</h1>"), "502: '<h1>Bad Gateway</h1>'; see what the server has written"),
        (httpx2.Response(302, headers={"location": "https://x.example/"}), "302: go to 'https://x.example/'"),
        (httpx2.Response(200, text="<h1>Welcome</h1>"), "the answer is not what a labelling server gives"),
        (httpx2.Response(200, json={"slug": "x"}), "the answer is not what a labelling server gives"),
    ],
)
def test_a_failure_names_address_status_and_what_to_do(reply: httpx2.Response, told: str) -> None:
    with pytest.raises(ServerError) as failed:
        server(reply).project("x")
    assert str(failed.value).startswith(f"GET {URL}/api/projects/x: ")
    assert told in str(failed.value)
    assert SECRET not in str(failed.value)


def test_pages_are_followed_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_JUDGEMENTS", 2)
    asked: list[httpx2.Request] = []
    notes = ["one\u2028two", "\x85", ""]  # line ends to Python, not to JSON
    expected = [judgement(number, note) for number, note in enumerate(notes)]
    found = list(server(ndjson(*expected[:2]), ndjson(expected[2]), asked=asked).judgements("house"))
    assert found == expected
    assert [dict(request.url.params) for request in asked] == [{"limit": "2"}, {"limit": "2", "after": "j1"}]


def test_names_are_quoted() -> None:
    asked: list[httpx2.Request] = []
    reply = httpx2.Response(200, json={"name": "a+b@c", "judgements": 1, "counted": False})
    server(reply, asked=asked).count_in("house", "a+b@c", False)
    assert asked[0].url.raw_path == b"/api/projects/house/labelers/a%2Bb%40c/counted"
    assert json.loads(asked[0].content) == {"counted": False}


def test_a_new_project_is_sent_as_records() -> None:
    asked: list[httpx2.Request] = []
    refused = httpx2.Response(422, json={"detail": "no"})
    with pytest.raises(ServerError):
        server(refused, asked=asked).create_project("House", PROMPTS, COMPLETIONS, overlap=2)
    sent = exchange.NewProject.model_validate(json.loads(asked[0].content))
    assert sent == exchange.NewProject(name="House", prompts=tuple(PROMPTS), completions=tuple(COMPLETIONS), overlap=2)


def test_the_token_is_shown_nowhere() -> None:
    found = server()
    assert repr(found) == f"LabelServer('{URL}')"
    assert SECRET not in repr(vars(found)) + repr(found.client.headers)


@pytest.mark.parametrize("url", ["http://labels.example.org", "http://192.0.2.7:8765", "http://localhost.example.org"])
def test_the_token_does_not_travel_in_the_clear(url: str) -> None:
    with pytest.raises(ConfigError, match="plain http"):
        LabelServer(url, SECRET)
    assert LabelServer(url, SECRET, plain_http=True).url == url


@pytest.mark.parametrize("url", ["http://localhost:8765/", "http://127.0.0.1:8765", "http://[::1]:8765", URL])
def test_this_machine_and_tls_will_do(url: str) -> None:
    assert LabelServer(url, SECRET).url == url.rstrip("/")


@pytest.mark.parametrize("url", ["labels.example.org", "ftp://labels.example.org", "", "http://", "https://x:y", f"{URL}/?a=b"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no labelling server's address"):
        LabelServer(url, SECRET)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="leave user and password out") as refused:
        LabelServer("https://ada:hunter2@labels.example.org", SECRET)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("token", [f"{SECRET}\n", f"{SECRET} ", f"{SECRET}é"])
def test_a_token_that_was_copied_wrong_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError, match="copy it anew") as refused:
        LabelServer(URL, token)
    assert SECRET not in str(refused.value)


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(ConfigError, match=TOKEN):
        LabelServer(URL)
    monkeypatch.setenv(TOKEN, SECRET)
    assert LabelServer(URL).client.headers["Authorization"] == f"Bearer {SECRET}"


def test_a_proxy_does_not_learn_a_token_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.org:3128")
    made: list[dict[str, Any]] = []
    plain: Callable[..., Any] = httpx2.Client
    monkeypatch.setattr(httpx2, "Client", lambda **options: made.append(options) or plain(**options))
    LabelServer("http://localhost:8765", SECRET)
    LabelServer(URL, SECRET)
    assert [options["trust_env"] for options in made] == [False, True]
