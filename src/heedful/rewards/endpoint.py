"""Rewards from an HTTP endpoint: a POST of conversations and completions, one number an answer back.

Text in place of numbers, NaN and a wrong count are tried again, as what `heedful.endpoint` tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from heedful.endpoint import Endpoint, EndpointError, PassingError
from heedful.errors import RewardError
from heedful.models.reward import Answer
from heedful.rewards.answers import conversations, one_number_each
from heedful.team import once


class EndpointReward:
    """Asks a URL. Request: {"prompts": [[{role, content}, ...], ...], "completions": [text, ...]}; reply: {"rewards": [...]}.

    timeout_s, max_retries, backoff_s, token, sleep: as of an `Endpoint`. Of a team one member asks.
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
        self.endpoint = Endpoint(
            url, timeout_s=timeout_s, max_retries=max_retries, backoff_s=backoff_s, token=token, sleep=sleep
        )
        self.batch_rows = batch_rows
        self.measured = {}

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        def ask() -> tuple[list[float], int]:
            found: list[float] = []
            before = self.endpoint.num_retries
            for first in range(0, len(answers), self.batch_rows):
                found += self._ask(answers[first : first + self.batch_rows])
            return found, self.endpoint.num_retries - before

        rewards, retries = once(ask, f"rewards of {self.endpoint.url}")
        self.measured = {"endpoint_retries": float(retries)}
        return rewards

    def _ask(self, answers: Sequence[Answer]) -> list[float]:
        body = {"prompts": conversations(answers), "completions": [answer.text for answer in answers]}

        def numbers(reply: Any) -> list[float]:
            rewards = reply.get("rewards") if isinstance(reply, dict) else reply
            try:
                return one_number_each(rewards, answers, f"{self.endpoint.url}: the endpoint")
            except RewardError as error:
                raise PassingError(str(error)) from None

        try:
            return self.endpoint.post(body, numbers)
        except EndpointError as error:
            if error.status is not None:
                raise RewardError(f"{error}; then the same command goes on from its checkpoint") from None
            raise RewardError(
                f"{error}. Nothing that was learned is lost: mend the endpoint, then run the same command again; training goes "
                "on from its last checkpoint"
            ) from None
