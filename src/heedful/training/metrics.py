"""What a training stage measures at each step, kept in metrics.jsonl and as TensorBoard events."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from heedful.store import read_metrics, write_text, writing


class Metrics:
    """metrics.jsonl and TensorBoard events of one run: `step, stage, time` and the quantities of a step.

    keep_below: on resuming, the lines of `stage` from this step on are dropped, for they will be written again.
    """

    def __init__(self, run: Path, stage: str, keep_below: int = 0) -> None:
        self.stage = stage
        self.path = run / "metrics.jsonl"
        self.rows: list[dict[str, Any]] = []
        others = []
        for row in read_metrics(run):
            if row["stage"] != stage:
                others.append(row)
            elif row["step"] < keep_below:
                self.rows.append(row)
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in [*others, *self.rows]))
        with writing(run / "tensorboard"):
            self.board = SummaryWriter(str(run / "tensorboard" / stage), purge_step=keep_below)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Appends one step's quantities."""
        row = {"step": step, "stage": self.stage, "time": round(time.time(), 3), **values}
        with writing(self.path):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
            for name, value in values.items():
                self.board.add_scalar(f"{self.stage}/{name}", value, step)
            self.board.flush()
        self.rows.append(row)

    def close(self) -> None:
        self.board.close()
