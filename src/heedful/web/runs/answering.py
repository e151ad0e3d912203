"""The process beside the server that holds the models and answers, one question after the other.

The end of that process, for want of memory, say, is the end of the question at hand and not of the chat: the next one begins it
anew. A multiprocessing pool would lose the question without a word.
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from heedful.errors import HeedfulError

ENDED = "The process that holds the models has ended, perhaps for want of memory. Say it again."
FAILED = "The models could not answer; the server's log says why."
log = logging.getLogger(__name__)

# Told with the answers, or with None and what went wrong.
Done = Callable[[Any, str], None]


class Answering:
    """answer: a function of a module that needs no Django; the models are loaded by it, in its own process."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.answer = answer
        self.waiting: queue.Queue[tuple[tuple[Any, ...], Done]] = queue.Queue()
        self.thread: threading.Thread | None = None
        self.process: Any = None
        self.lock = threading.Lock()

    def ask(self, arguments: tuple[Any, ...], done: Done) -> None:
        """Queues a question. done: is called on a thread of its own, once."""
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self._go_on, daemon=True)
                self.thread.start()
        self.waiting.put((arguments, done))

    def _go_on(self) -> None:
        ours: Connection | None = None
        while True:
            arguments, done = self.waiting.get()
            try:
                if ours is None:
                    ours = self._begin()
                ours.send(arguments)
                answers, problem = ours.recv()
            except Exception as error:  # whatever it is, the thread goes on
                if not isinstance(error, EOFError | OSError):
                    log.exception("a question was not answered")
                if self.process is not None:
                    self.process.kill()
                ours, answers, problem = None, None, ENDED
            try:
                done(answers, problem)
            except Exception:  # of the database, say: the next question is answered all the same
                log.exception("an answer was not stored")

    def _begin(self) -> Connection:
        spawn = multiprocessing.get_context("spawn")  # a fresh interpreter and no fork: this process has threads
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(self.answer, theirs), daemon=True)
        process.start()
        self.process = process
        theirs.close()
        return ours


def _serve(answer: Callable[..., Any], asked: Connection) -> None:
    """In the process: until the server is gone, whose matter Ctrl-C is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            arguments = asked.recv()
        except EOFError:
            return
        try:
            told = answer(*arguments), ""
        except HeedfulError as error:
            told = None, str(error)
        except Exception:
            log.exception("a question was not answered")
            told = None, FAILED
        asked.send(told)
