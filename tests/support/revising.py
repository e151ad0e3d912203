"""Run as a process, without torch: chains by an address, with a journal. `python revising.py URL FOLDER COUNT`."""

from __future__ import annotations

import sys
from pathlib import Path

from small_constitution import RULES, prompts

from heedful.config import ReviseSection
from heedful.constitution.revision import Reviser
from heedful.endpoint import Endpoint
from heedful.judging.calls import Calls
from heedful.judging.chat import ChatServer, RemoteWriter
from heedful.judging.writing import Journaled
from heedful.store import write_jsonl

IN_FLIGHT = 16


def main(url: str, folder: Path, count: int) -> None:
    endpoint = Endpoint(url, timeout_s=30.0, max_retries=1, backoff_s=0.0)
    write = Journaled(RemoteWriter(ChatServer(endpoint, "m", in_flight=IN_FLIGHT)), Calls(folder / "calls.jsonl"))
    reviser = Reviser(RULES, write, name="m", settings=ReviseSection(num_revisions=1, num_examples=1), seed=0)
    write_jsonl(folder / "chains.jsonl", reviser(prompts(count)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
