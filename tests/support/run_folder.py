"""Run directories without models: a manifest, metrics of steps, and what an evaluation leaves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from heedful.config import parse, to_toml
from heedful.store import write_json, write_text

MAX_STEPS = 400


def row(step: int, stage: str = "ppo", **more: Any) -> dict[str, Any]:
    """Of a step, with quantities that follow from its number."""
    found = {
        "step": step,
        "stage": stage,
        "time": 1_000_000 + 2.0 * step,
        "reward": math.sin(step / 7) + step / 100,
        "kl_policy_ref": 0.02 * step,
        "entropy": 2.0 / (1 + step / 50),
        "value_loss": 1.0 / (1 + step),
        "clip_fraction": 0.1,
        "length": 20.0 + step % 5,
        "finished": 0.5,
        "reward_length_correlation": 0.1,
        "repeated": 0.01,
        "hacking_level": 0.0,
    }
    if step % 10 == 9:
        found |= {"heldout_reward": step / 100, "heldout_gold": 0.5, "length_ratio": 1.0}
    return found | more


def append(run: Path, rows: list[dict[str, Any]]) -> None:
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(one) + "\n" for one in rows))


def make(run: Path, num_steps: int = 30, *, state: str = "running", config: str = "") -> Path:
    """A run whose ppo stage is in this state after so many steps. config: more of heedful.toml's keys, "ppo.kl_target=3.0"."""
    run.mkdir(parents=True, exist_ok=True)
    ppo = {"state": state, "started": 1_000_000.0, "seconds": 60.0}
    write_json(run / "manifest.json", {"stages": {"reward": {"state": "done", "seconds": 12.0}, "ppo": ppo}})
    overrides = (f"ppo.max_steps={MAX_STEPS}", *config.split())
    write_text(run / "heedful.toml", to_toml(parse({}, "--set", tuple(overrides))))
    append(run, [row(step) for step in range(num_steps)])
    return run


def answer(prompt_id: str, prompt: str, text: str, **figures: Any) -> dict[str, Any]:
    told = {"tags": ["helpful"], "reward": 0.5, "toxicity": 0.1, "length": 4.0}
    return {"prompt_id": prompt_id, "prompt": prompt, "text": text} | told | figures


def evaluated(run: Path, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    for name, rows in (("before", before), ("after", after)):
        write_text(run / "evaluate" / f"{name}.jsonl", "".join(json.dumps(one) + "\n" for one in rows))
