"""The limit: how fast this machine multiplies matrices of the model's shapes, bfloat16 and float32. Argument: the job file."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from flops import shape_of
from turn import read_job

ROWS = 1024  # tokens side by side
SECONDS = 0.4  # of each shape and type


def rate(inputs: int, outputs: int, dtype: torch.dtype) -> float:
    """Operations a second of (ROWS, inputs) x (inputs, outputs): the upper decile of repeated products.

    A limit is what the machine can do; the middle would say what other processes left of it.
    """
    left, right = torch.randn(ROWS, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    for _ in range(3):
        torch.nn.functional.linear(left, right)
    found: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        torch.nn.functional.linear(left, right)
        found.append(2 * ROWS * inputs * outputs / (time.perf_counter() - began))
    return statistics.quantiles(found, n=10)[-1] if len(found) > 1 else found[0]


def main() -> None:
    job = read_job()
    shape = shape_of(json.loads((Path(job["inputs"]["folders"]["float32"]) / "config.json").read_text()), rank=0)
    shapes = sorted({*shape.matrices, (shape.hidden, shape.vocabulary)})
    found: dict[str, Any] = {"work": "gemm"}
    for name in ("bfloat16", "float32"):
        rates = {f"{ROWS}x{a}x{b}": rate(a, b, getattr(torch, name)) for a, b in shapes}
        found[name] = {"flops": statistics.median(rates.values()), "shapes": rates}
    Path(job["out"]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
