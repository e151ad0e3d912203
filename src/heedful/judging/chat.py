"""Chat completions of an OpenAI-compatible server: many requests in flight, each kept as it is finished, tokens counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

from heedful.endpoint import Endpoint, EndpointError, PassingError
from heedful.errors import DataError
from heedful.judging.calls import Usage
from heedful.judging.writing import EMPTY, Finished, Reply, Request, reply_of

T = TypeVar("T")
V = TypeVar("V")

IN_FLIGHT = 16
GIVE_UP = 32  # failures with no success between them: the server is down, and further questions would only wait
NEVER_HEARD = 3  # questions, each with all its tries, that a server which never said anything may leave without a reply
# What holds for every request to come: no token, no right, no such address or model.
LASTING = {401, 402, 403, 404, 405}


class ChatServer:
    """One model of a server. identity: what its answers depend on beside the request."""

    def __init__(self, endpoint: Endpoint, model: str, *, in_flight: int = IN_FLIGHT, usage: Usage | None = None) -> None:
        self.endpoint = endpoint
        self.model = model
        self.in_flight = in_flight
        self.usage = usage or Usage()
        self.identity = f"{endpoint.url} {model}"
        self.lock = threading.Lock()
        self.answered = False
        self.failures = 0  # since it last answered
        self.silences = 0  # failures without any reply, before it first answered

    def ask(self, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """What `read` makes of the first choice of the reply. Its tokens are counted, also where it is asked for again."""

        def counted(reply: Any) -> T:
            self._count(reply)
            return read(choice_of(reply))

        return self.endpoint.post({"model": self.model} | body, counted)

    def _count(self, reply: Any) -> None:
        usage = reply.get("usage") if isinstance(reply, dict) else None
        names = ("prompt_tokens", "completion_tokens")
        told: list[Any] = [usage.get(name) for name in names] if isinstance(usage, dict) else []
        with self.lock:
            self.usage.calls += 1
            if len(told) == 2 and all(type(number) is int and number >= 0 for number in told):
                self.usage.prompt_tokens += told[0]
                self.usage.completion_tokens += told[1]
            else:
                self.usage.uncounted += 1

    def each(
        self,
        items: Sequence[T],
        work: Callable[[T], V],
        failed: Callable[[EndpointError], V],
        kept: Callable[[int, V], None],
    ) -> list[V]:
        """`work` of each item, in order, `in_flight` at a time; `failed` gives the result of one whose endpoint failed.

        kept hears of each result in the calling thread as it comes. Raises DataError where all that follow would fail, too: the
        server knows no such token or model; GIVE_UP items failed with no success between them, in this call or over several; or
        NEVER_HEARD items of a server from which nothing has come yet. From a server that has answered, that it calls some
        requests wrong (too long, say) is no sign of its being down.
        """
        found: dict[int, V] = {}
        waiting = iter(enumerate(items))
        running: dict[Future[V], int] = {}
        pool = ThreadPoolExecutor(self.in_flight)
        try:
            while True:
                for place, item in islice(waiting, self.in_flight - len(running)):
                    running[pool.submit(work, item)] = place
                if not running:
                    return [found[place] for place in range(len(items))]
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    place = running.pop(future)
                    try:
                        found[place] = future.result()
                        self.answered, self.failures = True, 0
                    except EndpointError as error:
                        self.failures += error.status is None or not self.answered
                        self.silences += error.unheard and not self.answered
                        if error.status in LASTING or self.failures >= GIVE_UP or self.silences >= NEVER_HEARD:
                            raise self._lost(error) from None
                        found[place] = failed(error)
                        self.usage.invalid += 1
                    kept(place, found[place])
        except BaseException:
            self.endpoint.stop.set()
            raise
        finally:
            self.usage.retries = self.endpoint.num_retries
            pool.shutdown(wait=False, cancel_futures=True)

    def _lost(self, error: EndpointError) -> DataError:
        row = f", {self.failures} requests in a row" if self.failures > 1 else ""
        then = "Run the same command again when it answers" if error.status is None else "Then run the same command again"
        return DataError(f"the model {self.model}: {error}{row}. {then}")


class RemoteWriter:
    """A chat model that writes. Requests are independent, so replies do not depend on what is in flight beside them."""

    def __init__(self, server: ChatServer) -> None:
        self.server = server
        self.identity = server.identity
        self.usage = server.usage

    def fits(self, request: Request) -> bool:
        return True

    def __call__(self, requests: Sequence[Request], finished: Finished | None = None) -> list[Reply]:
        tell = finished or (lambda _: None)

        def work(request: Request) -> Reply:
            body = {
                "messages": [message.model_dump() for message in request.messages],
                "temperature": request.temperature,
                "top_p": request.top_p,
                "seed": request.seed,
                "max_tokens": request.max_new_tokens,
            }
            return self.server.ask(body, _reply)

        def kept(place: int, reply: Reply) -> None:
            self.usage.invalid += reply.problem == EMPTY
            tell({place: reply})

        return self.server.each(requests, work, lambda error: Reply("", problem=str(error)), kept)


def _reply(choice: dict[str, Any]) -> Reply:
    return reply_of(choice["message"]["content"], finished=choice.get("finish_reason") != "length")


def choice_of(reply: Any) -> dict[str, Any]:
    """The first choice of a chat completion. Raises PassingError for anything else."""
    try:
        choice = reply["choices"][0]
        assert isinstance(choice["message"]["content"], str)
    except (KeyError, IndexError, TypeError, AssertionError):
        raise PassingError(f"the reply is no chat completion with a text: {str(reply)[:200]!r}") from None
    return dict(choice)
