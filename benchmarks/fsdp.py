"""Memory of each worker that holds the whole base, or its share of it (scale.fsdp). docs/operations.md has the figures.

python benchmarks/fsdp.py [--workers 2] [--model smollm2-135m]

Each worker is a process with one thread: it loads the model in float32 and makes one step forward and back over four rows of 80
tokens with an adapter on the upper ten layers. PSS counts a page that n processes map as an nth of it. Rss at its most counts
pages of the mapped file as well, which the system may drop; what they were at that moment is shown beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

ROWS, PROMPT_TOKENS, RESPONSE_TOKENS = 4, 40, 40


def sizes(name: str) -> dict[str, int]:
    """Bytes by kind from a file of /proc/self in kilobytes."""
    lines = (line.split() for line in Path(f"/proc/self/{name}").read_text().splitlines())
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}


class Watch:
    """The most private memory (RssAnon) at any time, asked every few milliseconds."""

    def __init__(self) -> None:
        self.most = 0
        threading.Thread(target=self.look, daemon=True).start()

    def look(self) -> None:
        while True:
            self.most = max(self.most, sizes("status")["RssAnon"])
            time.sleep(0.002)

    def tell(self, rank: int, when: str) -> None:
        pss, status = sizes("smaps_rollup")["Pss"], sizes("status")
        shown = f"PSS {pss / 1e6:.0f} MB, RSS {status['VmRSS'] / 1e6:.0f} MB, private at most {self.most / 1e6:.0f} MB"
        print(f"worker {rank} {when}: {shown}", flush=True)
        self.most = 0


def work(member: dict[str, Any], source: str) -> None:
    import peft  # noqa: F401  libraries are loaded before the first figure
    import torch
    import torch.distributed.fsdp
    from transformers import AutoModelForCausalLM  # noqa: F401

    from heedful.models.policy import load_language_model
    from heedful.models.trunk.packed import pack
    from heedful.scale.members import Member, ProcessTeam
    from heedful.team import ALONE, together, working_in

    ours, watch = ProcessTeam(Member(**member)) if member["size"] > 1 else ALONE, Watch()
    with working_in(ours):
        watch.tell(ours.rank, "before loading")
        model = load_language_model(source, dtype=torch.float32, device=torch.device("cpu"))
        together(lambda: None, "loaded")
        watch.tell(ours.rank, "after loading")
        model.add_adapter("policy", rank=16, alpha=16, targets=("q_proj", "v_proj"), layers=10, seed=0)
        learning = list(model.adapter_parameters("policy").values())
        for tensor in learning:
            tensor.requires_grad_(True)
        prompts = [list(range(100, 100 + PROMPT_TOKENS))] * ROWS
        responses = [list(range(200 + i, 200 + i + RESPONSE_TOKENS)) for i in range(ROWS)]
        for number in (1, 2):
            clock = time.perf_counter()
            hidden_ND = model.read(pack(prompts, responses, device=model.device), adapter="policy")
            hidden_ND.sum().backward(inputs=learning)
            del hidden_ND
            together(lambda: None, "a step")
            watch.tell(ours.rank, f"after step {number}, {time.perf_counter() - clock:.1f} s")


def main() -> None:
    from heedful.scale.runners import free_port

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--member", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.member:
        work(json.loads(asked.member), asked.model)
        return
    team = {"size": asked.workers, "num_trainers": asked.workers, "address": f"127.0.0.1:{free_port()}", "fsdp": True}
    started = []
    for rank in range(asked.workers):
        member = json.dumps(team | {"rank": rank, "deadline_s": 300.0})
        started.append(subprocess.Popen([sys.executable, __file__, "--model", asked.model, "--member", member]))
    sys.exit(max(process.wait() for process in started))


if __name__ == "__main__":
    main()
