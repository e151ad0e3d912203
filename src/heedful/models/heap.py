"""What the work has freed goes back to the system: glibc would keep it cut up, a heap a thread, and take more."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

LARGE = 1 << 20
M_MMAP_THRESHOLD = -3  # of <malloc.h>


def give_back() -> None:
    """Now, as far as it lies together."""
    if trim := _glibc("malloc_trim"):
        trim(0)


def keep_large_apart() -> None:
    """From now on each block of LARGE bytes or more is mapped by itself, and gone when it is freed."""
    if tell := _glibc("mallopt"):
        tell(M_MMAP_THRESHOLD, LARGE)


@cache
def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
