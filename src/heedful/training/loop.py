"""The one training loop: optimiser, schedule, checkpoints, resuming, stopping. A method brings only what differs."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from heedful.errors import RewardError, StoreError, TrainingError
from heedful.store import write_bytes
from heedful.training.metrics import Metrics

# done, total, what is going on; a command line draws a bar from it, a test passes nothing.
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, note: str) -> None:
    """Progress that nobody watches."""


class Method(Protocol):
    """What differs between reward model, PPO and their kin."""

    def step(self, step: int) -> dict[str, float]:
        """One optimisation step and what it measured. Every random choice derives from the step's number."""

    def evaluate(self, step: int) -> dict[str, float]:
        """What is measured on held-out prompts after `step` steps; may be empty."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later step depends on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""


@dataclass(frozen=True)
class Stop:
    """When to end before max_steps: once the evaluated `metric` reaches `threshold`."""

    metric: str = ""
    threshold: float = math.inf


class Optimiser:
    """AdamW over named groups with their own peak rates, linear warm-up, and clipping to a joint norm."""

    def __init__(self, groups: dict[str, tuple[Sequence[nn.Parameter], float]], *, max_grad_norm: float) -> None:
        self.peaks = {name: rate for name, (_, rate) in groups.items()}
        self.names = {name: list(parameters) for name, (parameters, _) in groups.items()}
        self.max_grad_norm = max_grad_norm
        listed = [{"params": list(parameters), "lr": rate, "name": name} for name, (parameters, rate) in groups.items()]
        self.adamw = torch.optim.AdamW(listed, weight_decay=0.0)

    def set_rate(self, factor: float, *, frozen: Sequence[str] = ()) -> None:
        """Rates become peak * factor; groups in `frozen` stand still."""
        for group in self.adamw.param_groups:
            group["lr"] = 0.0 if group["name"] in frozen else self.peaks[group["name"]] * factor

    def update(self) -> float:
        """One step from the accumulated gradients, which it clears. Returns their norm before clipping."""
        parameters = [parameter for group in self.names.values() for parameter in group]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.max_grad_norm))
        if not math.isfinite(norm):
            name = next(
                (key for key, group in self.names.items() for p in group if p.grad is not None and not p.grad.isfinite().all()),
                "unknown",
            )
            raise TrainingError(
                f"the gradient of '{name}' is not finite; the last checkpoint is good. Lower the learning rate or use "
                "model.dtype = 'float32', then run the same command again"
            )
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm


def warmup(step: int, warmup_steps: int) -> float:
    """Factor of the peak rate: rises linearly to 1 over warmup_steps, from the first step on above 0."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def warmup_and_decay(step: int, num_steps: int) -> float:
    """Factor of the peak rate: rises over the first tenth of the steps, falls linearly towards a tenth.

    The last examples seen should not outweigh the first.
    """
    return warmup(step, max(1, num_steps // 10)) * (1 - 0.9 * step / max(1, num_steps))


def num_batches(count: int, size: int) -> int:
    """Batches an epoch; the last one may be smaller."""
    return -(-count // size)


def batch_of_step(step: int, count: int, size: int, seed: int) -> list[int]:
    """Which of `count` examples the step learns from; each epoch has an order of its own, made from seed and epoch."""
    epoch, place = divmod(step, num_batches(count, size))
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order[place * size : (place + 1) * size]


def shuffled(count: int, seed: int, start: int = 0) -> Iterator[int]:
    """0 ... count - 1 in a new order each pass, forever, from the `start`-th choice on."""
    epoch, offset = divmod(start, count)
    while True:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
        yield from order[offset:]
        epoch, offset = epoch + 1, 0


def run(
    method: Method,
    checkpoint: Path,
    metrics: Callable[[int], Metrics],
    *,
    max_steps: int,
    checkpoint_every: int,
    eval_every: int,
    stop: Stop | None = None,
    progress: Progress = silent,
) -> int:
    """Steps until max_steps or until `stop` says enough; returns the number of steps taken.

    checkpoint: a file written every checkpoint_every steps and at the end; when it exists, the run goes on from it and
    ends with the very numbers an uninterrupted run has. metrics: opens the log, keeping rows below the given step.
    """
    stop = stop or Stop()
    first, finished, unevaluated = _restore(method, checkpoint)
    log = metrics(first)
    step = first
    try:
        while not finished and (unevaluated or step < max_steps):
            if unevaluated:
                measured, unevaluated = unevaluated, {}
            else:
                try:
                    measured = method.step(step)
                except RewardError:
                    # Rewards are asked for before a step's first update, so the state is that of `step` whole steps.
                    _save(method, checkpoint, step, finished=False)
                    raise
                _require_finite(measured, step)
                step += 1
            if step % eval_every == 0 or step == max_steps:
                try:
                    measured |= method.evaluate(step)
                except RewardError:
                    _save(method, checkpoint, step, finished=False, unevaluated=measured)
                    raise
                finished = measured.get(stop.metric, -math.inf) >= stop.threshold
            log.add(step - 1, measured)
            if step % checkpoint_every == 0 or step == max_steps or finished:
                _save(method, checkpoint, step, finished)
            progress(step, max_steps, "  ".join(f"{name} {measured[name]:.3f}" for name in list(measured)[:2]))
    finally:
        log.close()
    return step


def _require_finite(measured: dict[str, float], step: int) -> None:
    for name, value in measured.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"step {step}: {name} is {value}. The last checkpoint is good: lower the learning rate or use "
                "model.dtype = 'float32', then run the same command again"
            )


def _save(method: Method, path: Path, step: int, finished: bool, unevaluated: dict[str, float] | None = None) -> None:
    """unevaluated: what the last step measured, when the evaluation that belongs to it is still to be made."""
    buffer = io.BytesIO()
    state = {"step": step, "finished": finished, "method": method.state_dict(), "unevaluated": unevaluated or {}}
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def _restore(method: Method, path: Path) -> tuple[int, bool, dict[str, float]]:
    if not path.exists():
        return 0, False, {}
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        method.load_state_dict(state["method"])
    except (RuntimeError, KeyError, ValueError, EOFError) as error:
        raise StoreError(f"{path}: the checkpoint does not fit ({error}); delete it to start this stage anew") from None
    return int(state["step"]), bool(state["finished"]), dict(state.get("unevaluated", {}))


def copy_into(parameters: Sequence[nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    """Overwrites parameters in place, so that optimisers keep pointing at them."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
