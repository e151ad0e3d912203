"""Who is asked in a chat and does not answer, or ends, or fails; of a module that a fresh process can import."""

from __future__ import annotations

import os
import time
from typing import Any

from heedful.errors import SourceError
from heedful.talking import Answered


def patient(*_: Any) -> None:
    time.sleep(600)


def moody(policy: str, base: str, histories: Any, said: str, *_: Any) -> dict[str, Answered]:
    """Does as it is told."""
    if said == "end":
        os._exit(9)
    if said == "fail":
        raise SourceError("smollm2: no such model")
    if said == "break":
        raise RuntimeError("secret detail")
    return {"aligned": Answered(f"{said} by {os.getpid()}", True, "")}
