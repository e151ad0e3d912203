"""JSON to an HTTP endpoint and back, with retries: what rewards and judges behind a URL share.

Whatever may pass is tried again with growing pauses: no connection, time-out, a server's error, a reply that cannot be read.
What will not pass (the server calls the request wrong) stops at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2

from heedful.errors import ConfigError, HeedfulError

T = TypeVar("T")

LONGEST_PAUSE_S = 60.0
CONNECT_S = 10.0
MAX_REPLY_BYTES = 1 << 22  # numbers and letters take kilobytes; what is larger is not ours
# Of the replies that call a request wrong, those that speak of the moment and not of the request.
PASSING = {408, 425, 429}


class PassingError(Exception):
    """A failure that may be over a moment later. pause_s: how long the server asks to be left alone, if it says so.

    unheard: whether nothing came back at all.
    """

    def __init__(self, problem: str, pause_s: float = 0.0, *, unheard: bool = False) -> None:
        super().__init__(problem)
        self.pause_s = pause_s
        self.unheard = unheard


class EndpointError(HeedfulError):
    """An endpoint failed. status: of the reply that called the request wrong; None where the last try failed. unheard: whether
    nothing came back from that one.
    """

    def __init__(self, problem: str, status: int | None = None, *, unheard: bool = False) -> None:
        super().__init__(problem)
        self.status = status
        self.unheard = unheard


class RateLimit:
    """Lets requests begin no closer than 60 / a_minute seconds; 0 lets them all. Threads share one."""

    def __init__(self, a_minute: float) -> None:
        self.interval_s = 60 / a_minute if a_minute else 0.0
        self.lock = threading.Lock()
        self.next_s = 0.0

    def wait_s(self) -> float:
        """How long who asks now has to wait; the place in the row is taken with it."""
        with self.lock:
            now = time.monotonic()
            begins = max(now, self.next_s)
            self.next_s = begins + self.interval_s
            return begins - now


def longest_pauses_s(max_retries: int, backoff_s: float) -> float:
    """Seconds that an Endpoint waits in all before it gives up, where the server asks for none."""
    return sum(min(LONGEST_PAUSE_S, backoff_s * 2.0**attempt) for attempt in range(max_retries))


class Endpoint:
    """One URL to which JSON is posted, or that is got where the body is None; threads may share it.

    timeout_s bounds a whole request, its reply included. The n-th retry comes after backoff_s * 2^(n-1) seconds, or after what
    the server's Retry-After says, 60 at most. token: sent as "Authorization: Bearer". requests_a_minute: most that are begun,
    retries with them; 0: no limit. sleep: for tests. num_retries counts requests that were sent again. `stop` is set by whoever
    gives the work up: then nothing is sent any more. plain: a reply is text and no JSON.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        max_retries: int,
        backoff_s: float,
        token: str = "",
        requests_a_minute: float = 0.0,
        sleep: Callable[[float], object] | None = None,
        plain: bool = False,
    ) -> None:
        self.url = url
        self.plain = plain
        self.limit = RateLimit(requests_a_minute)
        self.stop = threading.Event()
        self.timeout_s = timeout_s
        self.max_retries = max_retries
        self.backoff_s = backoff_s
        self.sleep = sleep or self.stop.wait  # which a stop ends at once
        self.num_retries = 0
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # An address that nobody listens at may swallow what is sent there; who lives accepts a connection soon.
        limits = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S))
        self.client = httpx2.Client(timeout=limits, headers=headers, follow_redirects=False)

    def post(self, body: Any, read: Callable[[Any], T]) -> T:
        """What `read` makes of the reply's JSON; where it raises PassingError the request is sent again.

        Raises EndpointError after the last try, or at once for a request that the server calls wrong.
        """
        for attempt in range(self.max_retries + 1):
            try:
                return read(self._ask(body))
            except PassingError as error:
                if attempt == self.max_retries:
                    raise EndpointError(
                        f"{error}. That was try {attempt + 1} of {attempt + 1}", unheard=error.unheard
                    ) from None
                pause_s = min(LONGEST_PAUSE_S, max(self.backoff_s * 2**attempt, error.pause_s))
                print(f"{error}; trying again in {pause_s:g} s", file=sys.stderr)
                self.num_retries += 1
                self.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _ask(self, body: Any) -> Any:
        if (wait_s := self.limit.wait_s()) > 0:
            self.stop.wait(wait_s)
        if self.stop.is_set():
            raise EndpointError(f"{self.url}: the work was given up")
        deadline = time.monotonic() + self.timeout_s
        try:
            with self.client.stream("GET" if body is None else "POST", self.url, json=body) as response:
                text = self._read(response, deadline)
        except httpx2.TimeoutException:
            raise PassingError(f"{self.url}: no reply within {self.timeout_s:g} s", unheard=True) from None
        except httpx2.HTTPError as error:
            raise PassingError(f"{self.url}: {type(error).__name__}: {error}", unheard=True) from None
        status = response.status_code
        if status >= 500 or status in PASSING:
            after = response.headers.get("Retry-After", "")
            pause_s = float(after) if after.isdecimal() else 0.0
            raise PassingError(f"{self.url}: the server answered {status} {text[:200]!r}", pause_s)
        if status != 200:
            raise EndpointError(
                f"{self.url}: the server answered {status} {text[:200]!r}, so it takes the request for a wrong one and will "
                "again. Check the address and what it expects",
                status,
            )
        if self.plain:
            return text
        try:
            return json.loads(text)
        except ValueError:
            raise PassingError(f"{self.url}: the reply is no JSON: {text[:200]!r}") from None

    def _read(self, response: httpx2.Response, deadline: float) -> str:
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > MAX_REPLY_BYTES:
                raise PassingError(f"{self.url}: the reply is longer than {MAX_REPLY_BYTES} bytes")
            if time.monotonic() > deadline:  # the client's own limit is a read, not the whole
                raise PassingError(f"{self.url}: the reply was not whole within {self.timeout_s:g} s")
        return b"".join(parts).decode("utf-8", errors="replace")


def token_in(variable: str, setting: str) -> str:
    """The bearer token in an environment variable; "" for no variable. setting: what named it, for the message."""
    if not variable:
        return ""
    token = os.environ.get(variable, "")
    if not token:
        raise ConfigError(f"{setting} = {variable!r}: there is no such environment variable, or it is empty")
    return token
