"""Tools at work, top to bottom: `heedful environment demo`.

FOLDER/model: a model of some hundred thousand weights, which has read transcripts of a calculator's use and of guesses.
FOLDER/prompts.jsonl: products that it has not read. FOLDER/run: an ordinary run directory in which it learns by its own
trials to call the calculator.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from heedful.config import Config, parse
from heedful.environments.arithmetic import problems, transcript
from heedful.environments.small_model import make_small_model
from heedful.pipeline import Pipeline
from heedful.progress import Progress
from heedful.records import Completion, Message, Prompt, Sampling
from heedful.store import Run, read_json, write_json, write_jsonl

NUM_TRAIN, NUM_HELDOUT = 400, 100
PRETRAINING_STEPS = 500
TOOL_SHARE = 0.4
# Every tenth step is enough to look at held-out prompts, and a model this small may move fast; at 5e-3 it moves too fast.
LEARNING: dict[str, Any] = {
    "max_steps": 30,
    "eval_every": 10,
    "episodes": 64,
    "samples_per_prompt": 4,
    "max_new_tokens": 40,
    "learning_rate": 3e-3,
    "kl_coef": 0.01,
    "kl_target": 0.0,
    "num_minibatches": 2,
    "lora": {"rank": 8, "alpha": 16, "layers": 0},
}


def demo_config(folder: Path, method: str, overrides: tuple[str, ...], seed: int) -> Config:
    """The configuration of FOLDER/run."""
    fields = {
        "seed": seed,
        "method": method,
        "model": {"source": str(folder / "model"), "dtype": "float32", "compile": "off"},
        "prompts": {"files": [str(folder / "prompts.jsonl")], "num_train": NUM_TRAIN, "num_heldout": NUM_HELDOUT},
        "environment": {"kind": "tools", "instructions": False, "max_turns": 3, "max_observation_tokens": 24},
        "ppo": LEARNING,
        "rloo": LEARNING,
        "grpo": LEARNING,
        "evaluate": {"max_new_tokens": 40, "num_completions": 4},
    }
    return parse(fields, "--set", overrides)


def demonstrate(
    folder: Path,
    progress: Progress,
    *,
    method: Literal["ppo", "rloo", "grpo"],
    overrides: tuple[str, ...] = (),
    seed: int = 0,
    steps: int = PRETRAINING_STEPS,
) -> dict[str, Any]:
    """Makes the model, lets it learn, and returns what its episodes came to before and after, with intervals."""
    clock = time.monotonic()

    def make() -> None:
        train = problems(NUM_TRAIN + NUM_HELDOUT, seed=seed + 1)
        marked = [
            prompt.model_copy(update={"split": "train" if place < NUM_TRAIN else "heldout"})
            for place, prompt in enumerate(train)
        ]
        write_jsonl(folder / "prompts.jsonl", marked)
        known = {prompt.id for prompt in marked}
        loss = make_small_model(
            folder / "model",
            steps=steps,
            tool_share=TOOL_SHARE,
            seed=seed,
            without=known,
            progress=lambda done, total, note: progress("pretrain", done, total, note),
        )
        write_json(folder / "pretrain" / "result.json", {"steps": steps, "loss": loss})

    with Run(folder) as run:
        run.stage("pretrain", make, settings={"steps": steps, "tool_share": TOOL_SHARE, "seed": seed}, inputs=[])
    config = demo_config(folder, method, overrides, seed)
    with Run(folder / "run") as run:
        Pipeline(config, run, progress, "heedful environment demo")()
    found = {
        "method": method,
        "episodes": read_json(folder / "run" / "evaluate" / "episodes.json"),
        "align": read_json(folder / "run" / method / "result.json"),
        "pretrain": read_json(folder / "pretrain" / "result.json"),
        "seconds": round(time.monotonic() - clock, 1),
    }
    write_json(folder / "summary.json", found)
    return found


def tasks(kind: Literal["arithmetic", "tictactoe"], count: int, heldout: int, seed: int) -> list[Prompt]:
    """Prompts that are tasks of an environment: products with their answers (tools), or games in either seat (tictactoe)."""
    if kind == "arithmetic":
        found = problems(count + heldout, seed=seed)
        return [p.model_copy(update={"split": "train" if i < count else "heldout"}) for i, p in enumerate(found)]
    asked = (Message(role="user", content="We play tic-tac-toe. Answer with the digit of an empty square and nothing else."),)
    rows = [
        {"id": f"game-{i}", "messages": asked, "split": "train" if i < count else "heldout", "seat": "xo"[i % 2]}
        for i in range(count + heldout)
    ]
    return [Prompt.model_validate(row) for row in rows]


def transcripts(prompts: Sequence[Prompt], *, tool_share: float, seed: int) -> list[Completion]:
    """How a teacher answers products, as completions to fine-tune on. tool_share: of them that call the calculator."""
    chance = random.Random(f"{seed}/transcripts")
    sampling = Sampling(temperature=0, top_p=1, seed=seed, max_new_tokens=1)
    found = []
    for prompt in prompts:
        parts = transcript(prompt, with_tool=chance.random() < tool_share)
        row = {
            "id": f"{prompt.id}/1",
            "prompt_id": prompt.id,
            "text": "".join(part.text for part in parts),
            "model": "teacher",
            "finish": "stop",
            "sampling": sampling.model_dump(),
            "parts": [part._asdict() for part in parts],
        }
        found.append(Completion.model_validate(row))
    return found


def examples(folder: Path, count: int) -> list[tuple[str, str]]:
    """The first held-out tasks and what the policy wrote, before and after: lines of its record."""
    found = []
    for side in ("before", "after"):
        path = folder / "run" / "evaluate" / f"completions-{side}.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:count]
        found += [(side, str(json.loads(line)["text"])) for line in lines if line]
    return found
