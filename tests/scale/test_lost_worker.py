"""A worker that does not come, and one that is killed while others wait for it: the wait ends, and says where each was."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from gang import gang

from heedful.team import LostWorkerError

pytestmark = pytest.mark.timeout(120)
DEADLINE_S = 4.0


def test_a_worker_that_does_not_come_is_named_with_its_place(tmp_path: Path) -> None:
    with gang(tmp_path, deadline_s=DEADLINE_S) as two:
        assert two.both("late", 0.5) == [0, 1]
        threading.Timer(DEADLINE_S + 4, two.process.kill).start()
        clock = time.monotonic()
        with pytest.raises(LostWorkerError, match=r"at 'rollouts'.* within 4 s .*worker 1: rollouts \(\d+ s ago\)"):
            two.both("late", 60.0)
        assert time.monotonic() - clock < 30


def test_a_worker_that_is_killed_ends_the_wait_at_once(tmp_path: Path) -> None:
    with gang(tmp_path, deadline_s=100.0) as two:
        threading.Timer(1.0, two.process.kill).start()
        clock = time.monotonic()
        with pytest.raises(LostWorkerError, match="one is gone"):
            two.both("late", 60.0)
        assert time.monotonic() - clock < 30
