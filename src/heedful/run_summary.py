"""What came out of a run, in one object: summary.json."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from heedful import __version__
from heedful.config import Config
from heedful.engine.device import peak_memory
from heedful.errors import ModelError
from heedful.fit import run_peak
from heedful.stage_names import all_stages
from heedful.stages.align import settings_of
from heedful.stages.evaluate import phrases_of
from heedful.store import Run, read_json


def summarise(
    config: Config,
    run: Run,
    *,
    command: str,
    judged: bool,
    trains_reward: bool,
    counts: dict[str, int],
    longest_prompt: int,
) -> dict[str, Any]:
    """judged: whether completions were judged here. counts: prompts by split. longest_prompt: in tokens, of those that the
    method was given in this process; 0 where it did not run in it, or on no processor.
    """
    path, done = run.path, run.manifest["stages"]
    labelled = read_json(path / "consensus" / "agreement.json") if judged else {}
    labelers = read_json(path / "consensus" / "labelers.json") if judged else []
    trained = {"reward_model": read_json(path / "reward" / "result.json")} if trains_reward else {}
    simulated = judged and not config.label.judgements and config.round.judges == "simulated"
    predicts = bool(longest_prompt) and trains_reward and not config.reward.model
    return {
        "model": config.model.source,
        "seed": config.seed,
        "heedful_version": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        **read_json(path / "evaluate" / "compare.json"),
        "phrases": phrases_of(path / "evaluate"),
        "kl_target": settings_of(config).kl_target,
        **trained,
        "align": read_json(path / config.method / "result.json"),
        "labelers": labelers,
        "agreement": labelled,
        "simulated_labelers": simulated,
        "counts": counts,
        "seconds": {name: done[name]["seconds"] for name in all_stages(config) if "seconds" in done.get(name, {})},
        # Of this process: a run that was resumed has had others.
        "peak_memory_mb": round(peak_memory() / 2**20, 1),
        "predicted_memory_mb": predicted_memory_mb(config, longest_prompt) if predicts else None,
    }


def predicted_memory_mb(config: Config, longest_prompt: int) -> float | None:
    """What the peak should have been. None for models of families for which no prediction is made; nor is there one on a GPU,
    for rewards that are no adapter on the base, or where each worker holds a share of the base.
    """
    if config.scale.fsdp and config.scale.num_workers > 1:
        return None
    try:
        return round(run_peak(config, longest_prompt=longest_prompt) / 2**20, 1)
    except ModelError:
        return None
