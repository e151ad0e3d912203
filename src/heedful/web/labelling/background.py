"""Statistics in a process beside the server, at a low priority: labelers' answers do not wait for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.pool import AsyncResult, Pool
from typing import Any

NICENESS = 10
_pool: Pool | None = None
_lock = threading.Lock()


def start(work: Callable[..., Any], *arguments: Any) -> AsyncResult[Any]:
    """Begins `work`, a function of a module that needs no Django, or queues it behind what was begun before."""
    global _pool
    with _lock:
        if _pool is None:  # a fresh interpreter and no fork: this process has threads
            _pool = multiprocessing.get_context("spawn").Pool(1, _quiet, (NICENESS,))
        return _pool.apply_async(work, arguments)


def _quiet(niceness: int) -> None:
    """In the worker: others go first, and Ctrl-C is for the server, whose end ends the worker."""
    os.nice(niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
