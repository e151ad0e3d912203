"""What `heedful tictactoe ppo|q` does: train, prove, save."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from heedful.config.section import with_overrides
from heedful.errors import StoreError
from heedful.store import Run, read_json, read_metrics, write_json
from heedful.training.loop import Progress, silent
from heedful.training.tictactoe import ppo, q
from heedful.training.tictactoe.agent import save_agent
from heedful.training.tictactoe.proof import certificate
from heedful.training.tictactoe.settings import BoardPPOSection, BoardQSection


def train_agent(
    method: Literal["ppo", "q"], output: Path, overrides: tuple[str, ...], seed: int, progress: Progress = silent
) -> dict[str, Any]:
    """Trains in output/METHOD, saves output/METHOD/agent, and returns what was proven of it. Goes on where it stopped."""
    settings: BoardPPOSection | BoardQSection
    settings = with_overrides(BoardPPOSection, overrides) if method == "ppo" else with_overrides(BoardQSection, overrides)
    folder = output / method

    def work() -> None:
        clock = time.monotonic()
        if isinstance(settings, BoardPPOSection):
            agent, steps = ppo.train(folder, settings=settings, seed=seed, progress=progress)
        else:
            agent, steps = q.train(folder, settings=settings, seed=seed, progress=progress)
        save_agent(agent, folder / "agent", {"method": method, "seed": seed, "steps": steps})
        proven = certificate(agent.best, seed)
        result: dict[str, Any] = {
            "method": method,
            "steps": steps,
            "seconds": round(time.monotonic() - clock, 1),
            "unbeaten": all(seat["every_line"]["losses"] == 0 for seat in proven.values()),
        }
        write_json(folder / "result.json", result | proven)

    with Run(output) as run:
        run.stage(method, work, settings=settings.model_dump() | {"seed": seed})
    return dict(read_json(folder / "result.json"))


def learning_curve(output: Path, method: str, quantity: str) -> list[tuple[int, float]]:
    """(step, value) wherever the log of a run holds the quantity. Raises StoreError when it never does."""
    points = [(row["step"] + 1, row[quantity]) for row in read_metrics(output) if row["stage"] == method and quantity in row]
    if not points:
        raise StoreError(f"{output / 'metrics.jsonl'}: holds no {quantity} of {method}; delete {output} and train anew")
    return points
