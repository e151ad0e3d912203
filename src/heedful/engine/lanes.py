"""A batch's parts, several side by side on a processor.

With all cores on one part they wait for one another at every product, of which a part has thousands; with a part each they
never do (docs/decisions/0005-the-trunk.md has the figures). Threads suffice: torch computes without Python's lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from heedful.models.policy import LanguageModel
from heedful.models.reward import AdapterReward, AnswerScorer

MOST_LANES = 4  # memory grows with them
# Tokens of a part: activations of a part a lane are alive at once. More is hardly faster on a processor.
LANE_TOKENS, LONE_TOKENS, GPU_TOKENS = 256, 512, 4096

Part = TypeVar("Part")
Found = TypeVar("Found")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lanes:
    """count: parts computed side by side. tokens: of a part, at most."""

    count: int
    tokens: int

    def each(
        self,
        parts: Sequence[Part],
        work: Callable[[Part], tuple[Tensor, Found]],
        *,
        costs: Sequence[int],
        learning: Sequence[Tensor] = (),
    ) -> list[Found]:
        """What `work` found besides the loss, for each part in order. The gradients of the losses by `learning` are added to
        theirs, always in the same order, so that the sum does not depend on which part was done first.

        costs: of each part; the dearest begin. Without `learning` there is no gradient. When a part fails, or Ctrl-C comes,
        the parts in hand are waited for and the others not begun.
        """
        wanted = [tensor for tensor in learning if tensor.requires_grad]

        def one(i: int) -> tuple[Sequence[Tensor | None], Found]:
            with torch.set_grad_enabled(bool(wanted)):
                loss, measured = work(parts[i])
            return torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else (), measured

        order = sorted(range(len(parts)), key=lambda i: (-costs[i], i))
        found: dict[int, Found] = {}
        for i, (gradients, measured) in zip(order, self._computed(one, order), strict=True):
            found[i] = measured
            for tensor, gradient in zip(wanted, gradients, strict=bool(wanted)):
                if gradient is not None:
                    tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
        return [found[i] for i in range(len(parts))]

    def _computed(self, one: Callable[[int], Result], order: Sequence[int]) -> Iterator[Result]:
        if self.count == 1 or len(order) == 1:
            yield from map(one, order)
            return
        pool = _pool(self.count, max(1, torch.get_num_threads() // self.count))
        begun: deque[Future[Result]] = deque()
        try:
            for i in order:
                begun.append(pool.submit(one, i))
            while begun:
                yield begun[0].result()
                begun.popleft()
        finally:
            for future in begun:
                future.cancel()
            wait(begun)


def lanes_for(model: LanguageModel, adapter: str | None) -> Lanes:
    """Several lanes where the packed trunk reads on a processor of several cores: the model's own modules have one adapter
    switched on at a time.
    """
    if model.device.type != "cpu":
        return Lanes(1, GPU_TOKENS)
    return cpu_lanes() if model.trunk(adapter) is not None else Lanes(1, LONE_TOKENS)


def cpu_lanes() -> Lanes:
    """As many as there are cores, up to a few."""
    count = min(torch.get_num_threads(), MOST_LANES)
    return Lanes(count, LANE_TOKENS if count > 1 else LONE_TOKENS)


def lanes_of(model: AnswerScorer) -> Lanes:
    """As `lanes_for`, of a reward model; an encoder is one lane."""
    return lanes_for(model.model, model.adapter) if isinstance(model, AdapterReward) else Lanes(1, LONE_TOKENS)


@cache
def _pool(count: int, num_threads: int) -> ThreadPoolExecutor:
    """Threads that live as long as the process: torch forgets its kernels when a thread is told how many cores it has."""
    before = torch.get_num_threads()
    arrived = threading.Barrier(count)

    def begin() -> None:
        # When it first asks, a thread takes over what another was told last; from then on it keeps what it is told itself.
        torch.get_num_threads()
        torch.set_num_threads(num_threads)
        arrived.wait()

    pool = ThreadPoolExecutor(count, "lane", initializer=begin)
    wait([pool.submit(torch.get_num_threads) for _ in range(count)])
    torch.set_num_threads(before)
    return pool
