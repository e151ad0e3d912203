"""Work in processes beside the server: labelers' answers do not wait for it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.pool import AsyncResult, Pool
from typing import Any

NICENESS = 10


class Worker:
    """A process of its own, begun when there is something to do, that does one thing after the other. niceness: 0 to 19."""

    def __init__(self, niceness: int) -> None:
        self.niceness = niceness
        self.pool: Pool | None = None
        self.lock = threading.Lock()

    def start(
        self,
        work: Callable[..., Any],
        *arguments: Any,
        done: Callable[[Any], None] | None = None,
        failed: Callable[[BaseException], None] | None = None,
    ) -> AsyncResult[Any]:
        """Begins `work`, a function of a module that needs no Django, or queues it behind what was begun before.

        done, failed: are told the outcome, on a thread of the pool's.
        """
        with self.lock:
            if self.pool is None:  # a fresh interpreter and no fork: this process has threads
                self.pool = multiprocessing.get_context("spawn").Pool(1, initializer=_quiet, initargs=(self.niceness,))
            return self.pool.apply_async(work, arguments, callback=done, error_callback=failed)


def _quiet(niceness: int) -> None:
    """In the worker: others go first, and Ctrl-C is for the server, whose end ends the worker."""
    os.nice(niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


statistics = Worker(NICENESS)
start = statistics.start
