"""The one training loop: order of examples, checkpoints, resuming, stopping. A method brings only what differs."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from heedful.errors import RewardError, StoreError, TrainingError
from heedful.store import write_bytes
from heedful.team import team, together
from heedful.training.metrics import Metrics
from heedful.training.optimiser import REMEDY
from heedful.training.watch import STOP

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


class Sample(NamedTuple):
    """What the policy says to a held-out prompt while it trains; reward where there is one."""

    prompt: str
    text: str
    reward: float | None = None


@runtime_checkable
class Speaking(Protocol):
    """A method whose policy can be heard."""

    def samples(self, step: int) -> list[Sample]:
        """Completions of a few held-out prompts after `step` steps, always of the same ones; called after `evaluate`."""


@runtime_checkable
class Watched(Protocol):
    """A method that somebody looks on at."""

    def signs(self, step: int) -> list[dict[str, Any]]:
        """What speaks against the run after `step` steps; called after `evaluate`."""


@dataclass(frozen=True)
class Stop:
    """When to end before max_steps; nothing ends a run by default.

    metric: one that `evaluate` measures; lower: whether less of it is better. threshold: enough once the metric reaches it.
    patience: enough after so many evaluations in a row that set no record; the method then goes back to the best of them,
    as it does at max_steps. max_kl: too far once a step measures a larger kl_policy_ref. record: the metric whose record
    counts, where it is another. A hacking_level of 2 ends the run; roll_back: then too the method goes back to the record, of
    evaluations with the lowest level: one that a sign speaks against is the best only where there is none without. With
    patience levels do not count.
    """

    metric: str = ""
    threshold: float | None = None
    lower: bool = False
    patience: int = 0
    max_kl: float = math.inf
    record: str = ""
    roll_back: bool = False

    def reached(self, value: float) -> bool:
        return self.threshold is not None and (value <= self.threshold if self.lower else value >= self.threshold)

    def better(self, value: float, best: float) -> bool:
        return value < best if self.lower else value > best


class Outcome(NamedTuple):
    """steps: that were taken. stopped: what ended the run. step: after which the policy, as it is now, was learned."""

    steps: int
    stopped: str
    step: int

    def as_dict(self) -> dict[str, Any]:
        """As a stage's result.json holds it."""
        return {"steps": self.steps, "stopped": self.stopped, "policy_step": self.step}


def num_batches(count: int, size: int, least: int = 1) -> int:
    """Batches an epoch. The last one may be smaller; one of fewer than `least` examples joins the batch before it."""
    whole, rest = divmod(count, size)
    return max(1, whole + (rest >= least))


def batch_of_step(step: int, count: int, size: int, seed: int, least: int = 1) -> list[int]:
    """Which of `count` examples the step learns from; each epoch has an order of its own, made from seed and epoch."""
    batches = num_batches(count, size, least)
    epoch, place = divmod(step, batches)
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order[place * size : None if place == batches - 1 else (place + 1) * size]


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
) -> Outcome:
    """Steps until max_steps or until `stop` says enough.

    checkpoint: a file written every checkpoint_every steps and at the end; when it exists, the run goes on from it and
    ends with the very numbers an uninterrupted run has. metrics: opens the log, keeping rows below the given step.
    """
    stop = stop or Stop()
    state = _restore(method, checkpoint)
    log = metrics(state.step)
    try:
        while not state.stopped and (state.unevaluated or state.step < max_steps):
            if state.unevaluated:
                measured, state.unevaluated = state.unevaluated, {}
            else:
                measured = _step(method, state, checkpoint)
                state.step += 1
            if measured.get("kl_policy_ref", 0.0) > stop.max_kl:
                state.stopped = "KL limit"
            if state.step % eval_every == 0 or state.step == max_steps or state.stopped:
                measured |= _evaluate(method, measured, state, checkpoint)
                _judge(method, measured, stop, state, checkpoint)
                if isinstance(method, Watched):
                    log.add_signs(state.step, method.signs(state.step))
                if isinstance(method, Speaking):
                    with _naming(state.step):
                        said = [sample._asdict() for sample in method.samples(state.step)]
                    log.add_samples(state.step, said)
            log.add(state.step - 1, measured)
            if state.step % checkpoint_every == 0 or state.step == max_steps or state.stopped:
                _save(method, checkpoint, state)
            progress(state.step, max_steps, "  ".join(f"{name} {measured[name]:.3f}" for name in list(measured)[:2]))
    finally:
        log.close()
    reason = state.stopped or "step limit"
    if not (state.best_step and (stop.patience or (stop.roll_back and reason == HACKING))):
        return Outcome(state.step, reason, state.step)
    best = _load(_best(checkpoint))
    best.pop("watch", None)  # who looks on has seen what came after
    method.load_state_dict(best)
    return Outcome(state.step, reason, state.best_step)


HACKING = "hacking monitor"


@dataclass
class _State:
    """Where a run stands. unevaluated: what the last step measured, when the evaluation that belongs to it is still to be made.

    best, best_level, best_step: record of the metric to stop by, the hacking_level beside it, and when it was set. since:
    evaluations after it.
    """

    step: int = 0
    stopped: str = ""
    unevaluated: dict[str, float] = field(default_factory=dict)
    best: float = math.nan
    best_level: float = 0.0
    best_step: int = 0
    since: int = 0


def _step(method: Method, state: _State, checkpoint: Path) -> dict[str, float]:
    team().begins(state.step)
    try:
        with _naming(state.step):
            return _finite(method.step(state.step))
    except RewardError:
        # Rewards are asked for before a step's first update, so the state is that of `step` whole steps.
        _save(method, checkpoint, state)
        raise


@contextmanager
def _naming(step: int) -> Iterator[None]:
    """Says in which step a number broke."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"step {step}: {error}") from None


def _finite(measured: dict[str, float]) -> dict[str, float]:
    for name, value in measured.items():
        if not math.isfinite(value):
            raise TrainingError(f"{name} is {value}. {REMEDY}")
    return measured


def _evaluate(method: Method, measured: dict[str, float], state: _State, checkpoint: Path) -> dict[str, float]:
    try:
        with _naming(state.step):
            return _finite(method.evaluate(state.step))
    except RewardError:
        stopped, state.stopped = state.stopped, ""
        state.unevaluated = measured
        _save(method, checkpoint, state)
        state.stopped = stopped
        raise


def _judge(method: Method, measured: dict[str, float], stop: Stop, state: _State, checkpoint: Path) -> None:
    """Keeps the record, and ends the run when it is good enough or gets no better. Beyond the KL limit nothing counts.

    Where the KL limit and the monitor end a run at once, the monitor's is the reason: with it goes the way back.
    """
    if measured.get("hacking_level", 0.0) >= STOP:
        state.stopped = HACKING
    record = stop.record or stop.metric
    if record not in measured or state.stopped:
        return
    value, level = measured[record], 0.0 if stop.patience else measured.get("hacking_level", 0.0)
    higher = stop.better(value, state.best) if level == state.best_level else level < state.best_level
    if not state.best_step or higher:
        state.best, state.best_level, state.best_step, state.since = value, level, state.step, 0
        if stop.patience or stop.roll_back:
            _dump(method.state_dict(), _best(checkpoint))
    else:
        state.since += 1
    if stop.metric in measured and stop.reached(measured[stop.metric]):
        state.stopped = f"{stop.metric.removeprefix('heldout_')} threshold"
    elif stop.patience and state.since >= stop.patience:
        state.stopped = "patience limit"


def _best(checkpoint: Path) -> Path:
    """Where the method's state at its record lies."""
    return checkpoint.with_name(f"best-{checkpoint.name}")


def _dump(state: dict[str, Any], path: Path) -> None:
    write_bytes(path, _packed(state))


def _load(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, weights_only=True, map_location="cpu"))
    except pickle.UnpicklingError:
        raise StoreError(f"{path}: damaged, or not a checkpoint of heedful's; delete it to start this stage anew") from None
    except (RuntimeError, KeyError, ValueError, EOFError, OSError) as error:
        raise StoreError(f"{path}: the checkpoint does not fit ({error}); delete it to start this stage anew") from None


def _save(method: Method, path: Path, state: _State) -> None:
    """Each member of a team writes a checkpoint of its own; member 0's is the one that is kept."""
    found = {"run": asdict(state), "method": method.state_dict()}
    if team().size > 1:
        _require_alike(found, state.step)
    _dump(found, path)


def _require_alike(found: dict[str, Any], step: int) -> None:
    """Raises TrainingError when members of a team have come to different states: every later step would part them further."""
    held = together(lambda: hashlib.sha256(_packed(found)).hexdigest(), "checkpoint")
    other = [rank for rank, digest in enumerate(held) if digest != held[0]]
    if other:
        raise TrainingError(
            f"step {step}: worker {', '.join(map(str, other))} has other weights or another state than worker 0, though all "
            "took the same steps; this checkpoint was not written. Are all machines of one kind, with equal versions of torch? "
            "Run the same command again: all begin with the last checkpoint"
        )


def _packed(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _restore(method: Method, path: Path) -> _State:
    if not path.exists():
        return _State()
    found = _load(path)
    try:
        method.load_state_dict(found["method"])
        return _State(**found["run"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: the checkpoint does not fit ({error}); delete it to start this stage anew") from None
