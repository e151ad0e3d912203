"""Rewards from an HTTP endpoint: a POST of conversations and completions, one number an answer back.

Whatever may pass is tried again with growing pauses: no connection, time-out, a server's error, text in place of numbers, NaN,
a wrong count. What will not pass (the server calls the request wrong) stops at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx2

from heedful.errors import ConfigError, RewardError
from heedful.models.reward import Answer
from heedful.rewards.answers import conversations, one_number_each

LONGEST_PAUSE_S = 60.0
MAX_REPLY_BYTES = 1 << 22  # a number an answer takes kilobytes; what is larger is not ours
# Of the replies that call a request wrong, those that speak of the moment and not of the request.
PASSING = {408, 425, 429}


class EndpointReward:
    """Asks a URL. Request: {"prompts": [[{role, content}, ...], ...], "completions": [text, ...]}; reply: {"rewards": [...]}.

    timeout_s bounds a whole request, its reply included. The n-th retry comes after backoff_s * 2^(n-1) seconds, 60 at most.
    token: sent as "Authorization: Bearer". sleep: for tests.
    """

    measured: dict[str, float]

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        max_retries: int,
        backoff_s: float,
        batch_rows: int,
        token: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.max_retries = max_retries
        self.backoff_s = backoff_s
        self.batch_rows = batch_rows
        self.sleep = sleep
        self.measured = {}
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx2.Client(timeout=timeout_s, headers=headers, follow_redirects=False)

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        found: list[float] = []
        self.measured = {"endpoint_retries": 0.0}
        for first in range(0, len(answers), self.batch_rows):
            found += self._with_retries(answers[first : first + self.batch_rows])
        return found

    def _with_retries(self, answers: Sequence[Answer]) -> list[float]:
        for attempt in range(self.max_retries + 1):
            try:
                return self._ask(answers)
            except _PassingError as error:
                if attempt == self.max_retries:
                    raise RewardError(
                        f"{error}. That was try {attempt + 1} of {attempt + 1}. Nothing that was learned is lost: mend the "
                        "endpoint, then run the same command again; training goes on from its last checkpoint"
                    ) from None
                pause_s = min(LONGEST_PAUSE_S, self.backoff_s * 2**attempt)
                print(f"{error}; trying again in {pause_s:g} s", file=sys.stderr)
                self.measured["endpoint_retries"] += 1
                self.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _ask(self, answers: Sequence[Answer]) -> list[float]:
        body = {"prompts": conversations(answers), "completions": [answer.text for answer in answers]}
        deadline = time.monotonic() + self.timeout_s
        try:
            with self.client.stream("POST", self.url, json=body) as response:
                text = self._read(response, deadline)
        except httpx2.TimeoutException:
            raise _PassingError(f"{self.url}: no reply within {self.timeout_s:g} s") from None
        except httpx2.HTTPError as error:
            raise _PassingError(f"{self.url}: {type(error).__name__}: {error}") from None
        status = response.status_code
        if status >= 500 or status in PASSING:
            raise _PassingError(f"{self.url}: the server answered {status} {text[:200]!r}")
        if status != 200:
            raise RewardError(
                f"{self.url}: the server answered {status} {text[:200]!r}, so it takes the request for a wrong one and will "
                "again. Check the address and what it expects; then the same command goes on from its checkpoint"
            )
        return self._numbers(text, answers)

    def _read(self, response: httpx2.Response, deadline: float) -> str:
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > MAX_REPLY_BYTES:
                raise _PassingError(f"{self.url}: the reply is longer than {MAX_REPLY_BYTES} bytes")
            if time.monotonic() > deadline:  # the client's own limit is a read, not the whole
                raise _PassingError(f"{self.url}: the reply was not whole within {self.timeout_s:g} s")
        return b"".join(parts).decode("utf-8", errors="replace")

    def _numbers(self, text: str, answers: Sequence[Answer]) -> list[float]:
        try:
            reply: Any = json.loads(text)
        except ValueError:
            raise _PassingError(f"{self.url}: the reply is no JSON: {text[:200]!r}") from None
        rewards = reply.get("rewards") if isinstance(reply, dict) else reply
        try:
            return one_number_each(rewards, answers, f"{self.url}: the endpoint")
        except RewardError as error:
            raise _PassingError(str(error)) from None


class _PassingError(Exception):
    """A failure that may be over a moment later."""


def token_in(variable: str) -> str:
    """The bearer token in an environment variable; "" for no variable."""
    if not variable:
        return ""
    token = os.environ.get(variable, "")
    if not token:
        raise ConfigError(f"reward.terms.token_env = {variable!r}: there is no such environment variable, or it is empty")
    return token
