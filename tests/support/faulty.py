"""heedful's command line with one fault in it, for a process that is a worker of a team, or for the one that looks after it.

FAULTS is a list in JSON of {rank, place, step, signal}; each happens once: the folder FAULTS_DONE remembers which have been.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heedful.scale.members import this_member
from heedful.training import loop, policy_update, rollout


def strike(place: str) -> None:
    """Where this worker has come to a place that a fault is at, it strikes."""
    member = this_member()
    for number, fault in enumerate(json.loads(os.environ["FAULTS"])):
        mark = Path(os.environ["FAULTS_DONE"]) / str(number)
        if member and fault["place"] == place and fault["rank"] == member.rank and STEP >= fault["step"] and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), fault["signal"])


STEP = -1


def before(module: Any, name: str, place: str) -> None:
    """The function of a module or class, with the place in front of it."""
    original: Callable[..., Any] = getattr(module, name)

    def then(*args: Any, **options: Any) -> Any:
        strike(place)
        return original(*args, **options)

    setattr(module, name, then)


def main() -> None:
    step = loop._step

    def counted(method: Any, state: Any, checkpoint: Path) -> Any:
        global STEP
        STEP = state.step
        return step(method, state, checkpoint)

    loop._step = counted
    before(rollout, "score_responses", "rollout")  # the answers are sampled, and nobody has them yet
    before(policy_update.PolicyUpdate, "_part_loss", "backward")
    before(loop, "write_bytes", "checkpoint")
    from heedful.cli.app import main as command

    command()


if __name__ == "__main__":
    main()
