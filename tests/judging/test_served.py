"""A feedback model behind a server that others wrote: `transformers serve`, whose answers are those of the same model here.

The server's own needs (pip install "transformers[serving]") are no part of heedful's but for its developers; without them these
tests are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_model
import torch

from heedful.config import FeedbackSection
from heedful.judging.feedback import open_feedback
from heedful.judging.judge import Judge, Pair
from heedful.judging.local import LocalWriter
from heedful.judging.writing import Request
from heedful.models.policy import load_language_model
from heedful.models.sources import resolve
from heedful.records import Message

NEEDS = ("fastapi", "uvicorn", "openai")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDS), reason='needs pip install "transformers[serving]"'
)
STARTS_S = 240  # on a busy machine; it takes about ten seconds of work


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """`transformers serve` on a folder's model; yields the address that ends in /v1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + STARTS_S
        while True:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def request(text: str) -> Request:
    return Request((Message(role="user", content=text),), seed=0, max_new_tokens=12, temperature=0.0)


def test_a_tiny_model_writes_there_what_it_writes_here(tmp_path: Path) -> None:
    folder = tiny_model.make(tmp_path / "tiny", context=512)
    requests = [request(f"Tell me {n} things about old houses.") for n in range(20)]
    model = load_language_model(str(folder), dtype=torch.float32, device=torch.device("cpu"))
    here = LocalWriter(model, None, identity="tiny")(requests)
    with served(folder) as url:
        opened = open_feedback(FeedbackSection(source=url, model=str(folder), max_retries=0), tmp_path / "calls.jsonl")
        there = opened.writer(requests)
        assert [(one.text, one.finish) for one in there] == [(one.text, one.finish) for one in here]
        assert len({one.text for one in there}) > 5
        read = sum(len(model.chat.prompt_ids(one.messages)) for one in requests)
        assert (opened.usage.calls, opened.usage.prompt_tokens, opened.usage.uncounted) == (20, read, 0)
        # Random weights name no letter: no opinion, and no tie.
        pairs = [Pair((Message(role="user", content="Hello?"),), "Hi.", "Go away.")]
        (opinion,) = Judge("tiny", opened.letters)(pairs)
        assert not opinion.valid
        assert opened.usage.invalid == 2


@pytest.mark.model
def test_the_135m_model_writes_there_what_it_writes_here(tmp_path: Path) -> None:
    folder = resolve("smollm2-135m")
    requests = [request("Name three colours."), request("What is the capital of France?")]
    model = load_language_model(str(folder), dtype=torch.float32, device=torch.device("cpu"))
    here = LocalWriter(model, None, identity="135m")(requests)
    with served(folder) as url:
        there = open_feedback(FeedbackSection(source=url, model=str(folder), timeout_s=300)).writer(requests)
    assert [one.text for one in there] == [one.text for one in here]
