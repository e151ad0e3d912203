"""Runs the turns: writes their jobs, starts each in a process of its own, keeps what is finished."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flops
import peers
from turn import marked_rows
from works import BATCH, LINEAR_PAIRS, NEW_TOKENS, PPO_EPOCHS, RANK, WARMUP, Settings, Work

from heedful.cli.app import SPIN
from heedful.training.loop import batch_of_step

HERE = Path(__file__).parent
# What a turn reads besides heedful; the rest of this folder may change without making its figures stale.
TURN_FILES = (
    *("turn.py", "works.py", "heedful_turn.py", "gemm.py", "flops.py", "inputs.py"),
    *("peer_models.py", "trl_ready.py", "trl_turn.py", "trl_ppo_turn.py", "generate_turn.py"),
)
# A smoke run: at most so many tokens in prompt and completion, and in a prompt to sample from, and so many sampled.
SHORT_TOKENS, SHORT_PROMPT, SHORT_SAMPLE = 112, 64, 8
FROM_PROMPTS = ("grpo", "ppo", "generate-32", "generate-128")


@dataclass(frozen=True)
class Bench:
    """A run of the benchmarks. work: the folder for jobs and finished turns. quick: one short step a turn, to see it work."""

    inputs_path: Path
    work: Path
    quick: bool

    @property
    def inputs(self) -> dict[str, Any]:
        return json.loads(self.inputs_path.read_text())  # type: ignore[no-any-return]

    def steps(self, work: Work) -> int:
        return 1 if self.quick and work.name != "linear" else work.steps

    @property
    def new_tokens(self) -> int:
        return SHORT_SAMPLE if self.quick else NEW_TOKENS

    def units(self, work: Work) -> int:
        """Of useful work a step."""
        return work.num_prompts * self.new_tokens if work.name.startswith("generate") else work.units

    def prompts(self, work: Work) -> list[int]:
        """Which prompts of the inputs the work samples from."""
        listed = self.inputs["prompts"]
        fitting = [i for i, ids in enumerate(listed) if not self.quick or len(ids) <= SHORT_PROMPT]
        return (fitting * work.num_prompts)[: work.num_prompts]

    def examples(self, work: Work) -> list[int]:
        """Which pairs of the inputs the work reads, warm-up included."""
        if work.name in FROM_PROMPTS:
            return []
        count = BATCH * (WARMUP + self.steps(work))
        if work.name == "linear":
            count = LINEAR_PAIRS[0] + sum(LINEAR_PAIRS)
        pairs = self.inputs["pairs"]
        fitting = [i for i, row in enumerate(pairs) if not self.quick or _longest(row) <= SHORT_TOKENS]
        while len(fitting) < count:
            fitting += fitting
        return fitting[:count]

    def job(self, work: Work, side: str, settings: Settings) -> dict[str, Any]:
        """What a turn is told; `order` has the places in `examples` as heedful's steps read them."""
        examples = self.examples(work)
        steps = WARMUP + self.steps(work)
        order = (
            []
            if work.name == "linear"
            else [i for step in range(steps if examples else 0) for i in batch_of_step(step, len(examples), work.batch, 0)]
        )
        return {
            "work": work.name,
            "side": side,
            "warmup": WARMUP,
            "steps": self.steps(work),
            "batch": work.batch,
            "units": self.units(work),
            "prompts": self.prompts(work),
            "new_tokens": self.new_tokens,
            "sizes": list(LINEAR_PAIRS) if work.name == "linear" else [],
            "examples": examples,
            "order": order,
            "settings": settings,
            "inputs": str(self.inputs_path),
        }

    def turn(self, work: Work, side: str, repeat: int, settings: Settings | None = None, name: str = "") -> dict[str, Any]:
        """One turn, or what is kept of it when it was finished earlier with the same job and the same sources."""
        settings = (work.settings if settings is None else settings) if side == "peer" else {}
        job = self.job(work, side, settings)
        script = HERE / (work.script if side == "peer" else "heedful_turn.py")
        python = peers.build(work.peer) if side == "peer" else Path(sys.executable)
        return self.run(python, script, job, f"{work.name}-{repeat}-{name or side}")

    def gemm(self, work: Work, repeat: int) -> dict[str, Any]:
        """The rates of matrix products, measured just before a work's pair of turns."""
        job = {"work": "gemm", "side": "limit", "inputs": str(self.inputs_path)}
        return self.run(Path(sys.executable), HERE / "gemm.py", job, f"gemm-{work.name}-{repeat}")

    def run(self, python: Path, script: Path, job: dict[str, Any], name: str) -> dict[str, Any]:
        folder = self.work / "turns"
        folder.mkdir(parents=True, exist_ok=True)
        out, job_path = folder / f"{name}.json", folder / f"{name}-job.json"
        job = job | {"out": str(out), "sources": fingerprint(), "python": str(python)}
        if out.exists() and job_path.exists() and json.loads(job_path.read_text()) == job:
            print(f"{name}: kept from earlier", file=sys.stderr, flush=True)
            return json.loads(out.read_text())  # type: ignore[no-any-return]
        out.unlink(missing_ok=True)
        job_path.write_text(json.dumps(job))
        print(f"{name} ...", file=sys.stderr, flush=True)
        began = time.perf_counter()
        log = folder / f"{name}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [str(python), str(script), str(job_path)], env=environment(), stdout=stream, stderr=subprocess.STDOUT
            )
            try:
                code = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
        if code or not out.exists():
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            told = "was killed, most likely for want of memory" if code == -9 else f"ended with code {code}"
            sys.exit(f"{last}\n{name}: the turn {told}; all it said is in {log}. Finished turns are kept: run it again")
        found = json.loads(out.read_text())
        rate = f", {found['rate']:.3g} a second, peak {found['peak_memory_gb']:.2f} GB" if "rate" in found else ""
        print(f"{name}: {time.perf_counter() - began:.0f} s{rate}", file=sys.stderr, flush=True)
        return found  # type: ignore[no-any-return]

    def needed_flops(self, work: Work) -> float:
        """Of all timed steps together."""
        inputs = self.inputs
        config = json.loads((Path(inputs["folders"]["float32"]) / "config.json").read_text())
        shape = flops.shape_of(config, RANK)
        if work.name in FROM_PROMPTS:
            samples = work.units // work.num_prompts if not work.name.startswith("generate") else 1
            prompts = [inputs["prompts"][i] for i in self.prompts(work)]
            shared = [(len(prompt), [self.new_tokens] * samples) for prompt in prompts] * self.steps(work)
            return flops.needed(work.name, shape, shared, epochs=PPO_EPOCHS if work.name == "ppo" else 1)
        job = self.job(work, "heedful", {})
        rows = [inputs["pairs"][job["examples"][i]] for i in job["order"][WARMUP * BATCH :]]
        other: list[flops.Shared] = []
        if work.name == "kto":
            marked = marked_rows(job | {"inputs": inputs})[WARMUP * BATCH :]
            listed = [(len(row["prompt_ids"]), [len(row["completion_ids"])]) for row in marked]
            other = [(len(row["prompt_ids"]), [len(row["KL_completion_ids"])]) for row in marked]
        elif work.name == "sft":
            listed = [(len(row["prompt_ids"]), [len(row["chosen_ids"])]) for row in rows]
        else:
            listed = [(len(row["prompt_ids"]), [len(row["chosen_ids"]), len(row["rejected_ids"])]) for row in rows]
        return flops.needed(work.name, shape, listed, other=other)


def _longest(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def environment() -> dict[str, str]:
    """Of every turn: threads that wait as those of `heedful` do, this tree's heedful, no look at the network."""
    path = os.pathsep.join([str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"GOMP_SPINCOUNT": SPIN, "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "TQDM_DISABLE": "1"}
    return os.environ | quiet | {"PYTHONPATH": path}


def fingerprint() -> str:
    """Hash of heedful's and the benchmarks' sources: a turn made by others is not kept."""
    digest = hashlib.sha256()
    for path in [*sorted((HERE.parent / "src").rglob("*.py")), *(HERE / name for name in TURN_FILES)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def chosen(works: dict[str, Work], only: Sequence[str]) -> list[Work]:
    unknown = sorted(set(only) - set(works))
    if unknown:
        sys.exit(f"--only {unknown[0]}: there is no such work; there are {', '.join(works)}")
    return [work for work in works.values() if not only or work.name in only]
