"""A team of two: the test's own process is member 0, and a process of its own is member 1 and does what the test names.

python gang.py MEMBER-AS-JSON, then on stdin a line of JSON for each piece of work, [name, arguments]; "ok" or why not back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

LIMIT_S = 60.0  # after which a member that is stuck is ended, so that no test hangs


class Gang:
    def __init__(self, member: Any, process: subprocess.Popen[str], places: Path) -> None:
        from heedful.scale.members import ProcessTeam

        self.team = ProcessTeam(member)
        self.process = process
        self.places = places

    def both(self, name: str, *arguments: Any) -> Any:
        """What the function `name` of gang_work.py gives here, while member 1 does it too."""
        import gang_work

        from heedful.scale.members import read_places
        from heedful.team import working_in

        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()
        stuck = threading.Timer(LIMIT_S, lambda: (print(f"stuck at {read_places(self.places)}"), self.process.kill()))
        stuck.start()
        try:
            with working_in(self.team):
                found = getattr(gang_work, name)(*arguments)
        finally:
            self.other = self.process.stdout.readline().strip()
            stuck.cancel()
        return found


@contextmanager
def gang(folder: Path, *, deadline_s: float = 30.0, num_trainers: int = 2) -> Iterator[Gang]:
    from heedful.scale.members import Member
    from heedful.scale.runners import free_port

    places = folder / "places"
    places.mkdir()
    address = f"127.0.0.1:{free_port()}"
    here, there = (
        Member(rank, 2, num_trainers, address, deadline_s, places=str(places), parent=rank * os.getpid()) for rank in (0, 1)
    )
    command = [sys.executable, __file__, json.dumps(asdict(there))]
    pythonpath = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": pythonpath}
    )
    try:
        made = Gang(here, process, places)
        yield made
        made.team.close()
    finally:
        process.kill()
        process.wait(timeout=10)


def main() -> None:
    import gang_work
    import torch

    from heedful.scale.members import Member, ProcessTeam, die_with
    from heedful.team import working_in

    torch.set_num_threads(1)
    member = Member(**json.loads(sys.argv[1]))
    die_with(member.parent)
    said = sys.stdout
    sys.stdout = sys.stderr
    with working_in(ProcessTeam(member)):
        for line in sys.stdin:
            name, arguments = json.loads(line)
            try:
                getattr(gang_work, name)(*arguments)
                answer = "ok"
            except Exception as error:
                answer = f"failed: {type(error).__name__}: {error}".replace("\n", " ")
            print(answer, file=said, flush=True)


if __name__ == "__main__":
    main()
