"""Whether a model fits into this machine with a configuration: what `heedful doctor --model` says, and a run's prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from heedful.config import Config, PolicySection
from heedful.engine import memory
from heedful.engine.device import choose_dtype, machine_memory
from heedful.engine.generation import MAX_ROWS
from heedful.engine.lanes import cpu_lanes
from heedful.engine.memory import Shape, Work
from heedful.models.sources import model_config

CPU = torch.device("cpu")
FITS, RECOMPUTED, TOO_LARGE = "fits", "fits with model.recompute = true", "does not fit"


def work_of(config: Config, stage: str, *, prompt_tokens: int) -> Work:
    """What a stage does with the model: "reward", "dpo", or the method that samples. prompt_tokens: of the longest prompt."""
    section = config.reward if stage == "reward" else config.dpo if stage == "dpo" else getattr(config, config.method)
    lanes = cpu_lanes()
    work = Work(
        width=choose_dtype(config.model.dtype, CPU).itemsize,
        part_tokens=lanes.tokens,
        lanes=lanes.count,
        prompt_tokens=prompt_tokens,
        response_tokens=0,
        rows=0,
        rank=section.lora.rank,
        adapted_layers=section.lora.layers,
        recompute=config.model.recompute,
    )
    if isinstance(section, PolicySection):
        return replace(
            work,
            response_tokens=section.max_new_tokens,
            rows=min(MAX_ROWS, max(section.episodes, config.prompts.num_heldout)),
            rollout_tokens=section.episodes * (prompt_tokens + section.max_new_tokens),
            tempered=section.temperature != 1,
            entropy=section.entropy_coef > 0,
        )
    return work


def run_peak(config: Config, *, longest_prompt: int) -> int:
    """Bytes at the peak of a whole run on a processor: of the reward's training or of the method, whichever needs more.

    Raises ModelError for a model that is not predicted.
    """
    shape = memory.shape_of(model_config(config.model.source), config.model.source)
    stages = {"reward": "reward", config.method: "ppo"}
    return max(memory.peak(shape, work_of(config, name, prompt_tokens=longest_prompt), kind) for name, kind in stages.items())


def fit(source: str, config: Config | None = None) -> dict[str, Any]:
    """Sizes by role, the peak of each stage with and without recomputing, the machine's memory, and what follows.

    config: by default that of an empty heedful.toml. No weights are read.
    """
    config = config or Config()
    shape = memory.shape_of(model_config(source), source)
    longest = config.prompts.max_prompt_tokens
    works = {stage: work_of(config, stage, prompt_tokens=longest) for stage in memory.STAGES}
    peaks = {
        stage: {
            name: memory.peak(shape, replace(work, recompute=flag), stage)
            for name, flag in (("kept", False), ("recomputed", True))
        }
        for stage, work in works.items()
    }
    total, available = machine_memory()
    verdict, sentence = judge(peaks, available, shape, works["ppo"])
    return {
        "model": source,
        "num_weights": shape.num_weights,
        "dtype": str(choose_dtype(config.model.dtype, CPU)).removeprefix("torch."),
        "part_tokens": works["ppo"].part_tokens,
        "lanes": works["ppo"].lanes,
        "rows": works["ppo"].rows,
        "row_tokens": longest + works["ppo"].response_tokens,
        "bytes": memory.by_role(shape, works["ppo"]),
        "peaks": peaks,
        "memory": {"total": total, "available": available},
        "verdict": verdict,
        "sentence": sentence,
    }


def judge(peaks: dict[str, dict[str, int]], available: int, shape: Shape, work: Work) -> tuple[str, str]:
    """The verdict over all stages, and what to do, in a sentence."""
    kept, recomputed = (max(sizes[name] for sizes in peaks.values()) for name in ("kept", "recomputed"))
    room = f"{gigabytes(available)} GB are available"
    if kept <= available:
        return FITS, f"It fits: the largest stage needs {gigabytes(kept)} GB, and {room}."
    if recomputed <= available:
        return RECOMPUTED, (
            f"It fits with model.recompute = true, which is slower by a third: {gigabytes(recomputed)} GB instead of "
            f"{gigabytes(kept)} GB, and {room}."
        )
    standing = memory.PROCESS + memory.base_weights(shape, work)
    if standing > available:
        lower = f"its weights and the process alone take {gigabytes(standing)} GB. Take a smaller model"
    elif memory.cache(shape, work) > memory.activations(shape, replace(work, recompute=True)):
        lower = "lower prompts.max_prompt_tokens, ppo.episodes and prompts.num_heldout, which the cache of answers grows with"
    else:
        lower = "lower lora.rank and lora.layers of the stage, or take a smaller model"
    return TOO_LARGE, f"It does not fit: {gigabytes(recomputed)} GB with model.recompute = true, and {room}; {lower}."


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"


ROLES = {
    "process": "Python, torch and their kin",
    "base": "base weights, once for policy, reference, value and reward",
    "adapter": "an adapter, its gradients and AdamW's moments",
    "activations": "activations of the training parts in hand",
    "activations_recomputed": "the same with model.recompute = true",
    "logprob_tiles": "log-prob tiles",
    "cache": "keys and values while answers are sampled",
    "kernels": "compiled products of many batch sizes",
}


def rows_of_roles(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table by role, in megabytes."""
    return [(text, f"{found['bytes'][name] / 1e6:,.0f}") for name, text in ROLES.items()]


def rows_of_stages(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table of peaks, in gigabytes."""
    return [
        (stage, f"{sizes['kept'] / 1e9:.2f}", f"{sizes['recomputed'] / 1e9:.2f}") for stage, sizes in found["peaks"].items()
    ]
