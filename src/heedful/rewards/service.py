"""A reward of any kind behind an address, in the protocol that `EndpointReward` speaks: `heedful reward serve`.

POST {"prompts": [[{role, content}, ...], ...], "completions": [text, ...]} gives {"rewards": [number, ...]}; GET says what is
served. Requests that come while others are scored are scored together in the next batch.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

import waitress
from pydantic import TypeAdapter, ValidationError

from heedful.config import Config
from heedful.errors import ConfigError, HeedfulError
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.rewards.answers import one_number_each
from heedful.rewards.asking import Judge

THREADS = 16  # requests that wait side by side
LARGEST_BODY = 1 << 24
MOST_ANSWERS = 1024  # of one request
MOST_WAITING = 8192  # answers of all requests; beyond that a client is asked to come again
BATCH_ANSWERS = 256  # scored at once
LOCAL = ("127.0.0.1", "::1", "localhost")

_CONVERSATIONS = TypeAdapter(list[tuple[Message, ...]])
_TEXTS = TypeAdapter(list[str])
Item = tuple[tuple[Message, ...], str]


class RefusedError(HeedfulError):
    """A request that is answered with a status that is not 200."""

    def __init__(self, status: HTTPStatus, said: str) -> None:
        super().__init__(said)
        self.status = status


class _Request:
    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.done = threading.Event()
        self.rewards: list[float] = []
        self.failed = ""


class Batcher:
    """Scores requests on one thread, those that wait together in one batch. deadline_s: the longest that one waits."""

    def __init__(self, score: Callable[[Sequence[Item]], list[float]], *, deadline_s: float) -> None:
        self.score = score
        self.deadline_s = deadline_s
        self.waiting: list[_Request] = []
        self.changed = threading.Condition()
        self.num_batches = 0
        threading.Thread(target=self._work, name="rewards", daemon=True).start()

    def __call__(self, items: list[Item]) -> list[float]:
        """The rewards of one request. Raises RefusedError when it waited too long, or too much waits already."""
        request = _Request(items)
        with self.changed:
            if sum(len(other.items) for other in self.waiting) + len(items) > MOST_WAITING:
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_WAITING} answers wait already; come again later")
            self.waiting.append(request)
            self.changed.notify()
        if not request.done.wait(self.deadline_s):
            with self.changed:
                if request in self.waiting:  # nobody waits for it any more
                    self.waiting.remove(request)
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"not scored within {self.deadline_s:g} s; come again later")
        if request.failed:
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, request.failed)
        return request.rewards

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.waiting))
                batch = [self.waiting.pop(0)]
                while self.waiting and sum(len(one.items) for one in [*batch, self.waiting[0]]) <= BATCH_ANSWERS:
                    batch.append(self.waiting.pop(0))
            self.num_batches += 1
            try:
                rewards = self.score([item for request in batch for item in request.items])
            except Exception as error:  # the service goes on with the next batch
                for request in batch:
                    request.failed = f"{type(error).__name__}: {error}"[:500]
            else:
                for request in batch:
                    request.rewards, rewards = rewards[: len(request.items)], rewards[len(request.items) :]
            for request in batch:
                request.done.set()


class Service:
    """The WSGI application. token: what "Authorization: Bearer" must say; "" lets everybody ask."""

    def __init__(self, batcher: Batcher, *, about: dict[str, Any], token: str = "") -> None:
        self.batcher = batcher
        self.about = about
        self.token = token

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            status, answer = HTTPStatus.OK, self._answer(environ)
        except RefusedError as error:
            status, answer = error.status, {"error": str(error)}
        body = json.dumps(answer, allow_nan=False).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append(("Retry-After", "1"))
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    def _answer(self, environ: dict[str, Any]) -> dict[str, Any]:
        given = environ.get("HTTP_AUTHORIZATION", "")
        if self.token and not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {self.token}".encode()):
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "the request has not the service's token as 'Authorization: Bearer'")
        if environ["REQUEST_METHOD"] == "GET":
            return self.about | {"num_batches": self.batcher.num_batches}
        if environ["REQUEST_METHOD"] != "POST":
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "expected a POST")
        items = read_request(environ["wsgi.input"].read())
        return {"rewards": self.batcher(items) if items else []}


def read_request(body: bytes) -> list[Item]:
    """Conversations and the answers to them. Raises RefusedError naming what is wrong."""
    wrong = HTTPStatus.BAD_REQUEST
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(wrong, f"the request is no JSON ({error})") from None
    if not isinstance(asked, dict) or not {"prompts", "completions"} <= set(asked):
        raise RefusedError(wrong, 'expected {"prompts": [[{"role", "content"}, ...], ...], "completions": [text, ...]}')
    try:
        prompts = _CONVERSATIONS.validate_python(asked["prompts"])
        completions = _TEXTS.validate_python(asked["completions"], strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RefusedError(wrong, f"prompts or completions, at {place}: {first['msg']}") from None
    if len(prompts) != len(completions):
        raise RefusedError(wrong, f"{len(prompts)} prompts and {len(completions)} completions; expected one prompt for each")
    if len(completions) > MOST_ANSWERS:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MOST_ANSWERS} completions a request")
    return list(zip(prompts, completions, strict=True))


def serve(
    config: Config, *, host: str, port: int, token: str, deadline_s: float, ready: Callable[[str], None] = lambda address: None
) -> None:
    """Serves the reward that the configuration's terms name until the process is ended. ready: hears the address.

    Raises ConfigError for an open port without a token, and for one that cannot be had.
    """
    if not token and host not in LOCAL:
        raise ConfigError(
            f"--host {host}: whoever reaches this machine could ask; name the variable of a token with --token-env, or "
            "listen on 127.0.0.1"
        )
    judge = Judge(config)
    clock = time.time()

    def score(items: Sequence[Item]) -> list[float]:
        answers: list[Answer] = [judge.answer(messages, text, finished=True) for messages, text in items]
        return one_number_each(judge.reward(answers), answers, "the reward")

    about = {"sources": [term.source for term in config.reward.terms], "since": round(clock, 3)}
    application = Service(Batcher(score, deadline_s=deadline_s), about=about, token=token)
    try:
        server = waitress.create_server(
            application, host=host, port=port, threads=THREADS, max_request_body_size=LARGEST_BODY, ident=None
        )
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise ConfigError(f"{host}:{port}: cannot be listened on ({told}); choose another --port or --host") from None
    found = server.effective_listen[0][1] if hasattr(server, "effective_listen") else server.effective_port
    ready(f"http://{f'[{host}]' if ':' in host else host}:{found}")
    try:
        server.run()
    finally:
        server.close()
