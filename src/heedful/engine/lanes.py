"""A batch's parts, several side by side on a processor, and spread over a team.

With all cores on one part they wait for one another at every product, of which a part has thousands; with a part each they
never do (docs/decisions/0005-the-trunk.md has the figures). Threads suffice: torch computes without Python's lock.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from heedful.models.heap import give_back
from heedful.models.policy import LanguageModel
from heedful.models.reward import AdapterReward, AnswerScorer
from heedful.models.trunk.llama import PackedTrunk
from heedful.team import shared, team

MOST_LANES = 4  # memory grows with them
# Tokens of a part: activations of a part a lane are alive at once. More is hardly faster on a processor.
LANE_TOKENS, LONE_TOKENS = 256, 512

Part = TypeVar("Part")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Lanes:
    """count: parts computed side by side. tokens: of a part, at most. trunk: the compiled one that the parts read, if any."""

    count: int
    tokens: int
    trunk: PackedTrunk | None = field(default=None, compare=False)

    def room(self, total: int) -> int:
        """Tokens of a part, of a batch of so many: in a team few enough that each trainer has one."""
        trainers = team().num_trainers
        return self.tokens if trainers == 1 else min(self.tokens, max(1, -(-total // trainers)))

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

        costs: of each part; the dearest begin. Without `learning` nothing has a gradient. When a part fails, or Ctrl-C comes,
        the parts in hand are waited for and the others not begun.

        In a team each trainer computes some of the parts, and the gradients are summed over all of it: losses are shares of a
        whole batch's, so the sum is that of one process, but for the order of its additions.
        """
        for tensor in learning:
            tensor.requires_grad_(True)  # PEFT takes it from an adapter while another one reads
        if team().size == 1:
            return self._here(parts, work, costs, learning)
        before = [tensor.grad for tensor in learning]
        for tensor in learning:
            tensor.grad = None

        def some(places: list[int]) -> list[Found]:
            return self._here([parts[i] for i in places], work, [costs[i] for i in places], learning)

        at = "gradients" if learning else "losses"
        found = shared(costs, some, at, members=team().num_trainers)
        if learning:
            _add_over_team(learning, before)
        return found

    def _here(
        self,
        parts: Sequence[Part],
        work: Callable[[Part], tuple[Tensor, Found]],
        costs: Sequence[int],
        learning: Sequence[Tensor],
    ) -> list[Found]:
        """As `each`, by this process alone."""
        order = sorted(range(len(parts)), key=lambda i: (-costs[i], i))
        if self.count == 1 or len(parts) == 1:
            found = {i: _in_turn(parts[i], work, learning) for i in order}
        else:
            found = self._side_by_side(parts, work, order, learning)
        return [found[i] for i in range(len(parts))]

    def _side_by_side(
        self,
        parts: Sequence[Part],
        work: Callable[[Part], tuple[Tensor, Found]],
        order: Sequence[int],
        learning: Sequence[Tensor],
    ) -> dict[int, Found]:
        pool = _pool(self.count, max(1, torch.get_num_threads() // self.count))

        def begin(i: int) -> Future[tuple[Sequence[Tensor | None], Found]]:
            # In a context of its own that is a copy of this one: the compiler's settings are part of it.
            return pool.submit(contextvars.copy_context().run, _gradients, parts[i], work, learning)

        found: dict[int, Found] = {}
        begun: deque[tuple[int, Future[tuple[Sequence[Tensor | None], Found]]]] = deque()
        try:
            for i in order:
                begun.append((i, begin(i)))
                if self.trunk is not None and bool(learning) not in self.trunk.met:
                    wait([begun[0][1]])  # it compiles the layers, which lanes would do each for itself
                    self.trunk.met.add(bool(learning))
            while begun:
                i, future = begun[0]
                gradients, found[i] = future.result()
                begun.popleft()
                for tensor, gradient in zip(learning, gradients, strict=bool(learning)):
                    if gradient is not None:
                        tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
                del future, gradients
                give_back()
        finally:
            for _, future in begun:
                future.cancel()
            wait([future for _, future in begun])
        return found


def _add_over_team(learning: Sequence[Tensor], before: Sequence[Tensor | None]) -> None:
    """Gradients become their sums over the team, in one exchange, and are added to what there was before.

    Of what no member has a gradient of there is none afterwards: an optimiser passes it over, which zeros would not make it do.
    """
    device = learning[0].device
    had = torch.tensor([float(tensor.grad is not None) for tensor in learning], device=device)
    grads = [
        torch.zeros(tensor.numel(), device=device) if tensor.grad is None else tensor.grad.flatten().float()
        for tensor in learning
    ]
    flat = torch.cat([had, *grads])
    team().add(flat, "sum of gradients")
    had, *sums = torch.split(flat, [len(learning), *(tensor.numel() for tensor in learning)])
    for tensor, some, total, old in zip(learning, had.tolist(), sums, before, strict=True):
        fresh = total.view(tensor.shape).to(tensor.dtype).clone() if some else None
        tensor.grad = fresh if old is None else old if fresh is None else old + fresh


def _in_turn(part: Part, work: Callable[[Part], tuple[Tensor, Found]], learning: Sequence[Tensor]) -> Found:
    with torch.set_grad_enabled(bool(learning)):
        loss, measured = work(part)
    if learning:
        loss.backward(inputs=list(learning))  # type: ignore[no-untyped-call]
    return measured


def _gradients(
    part: Part, work: Callable[[Part], tuple[Tensor, Found]], learning: Sequence[Tensor]
) -> tuple[Sequence[Tensor | None], Found]:
    with torch.set_grad_enabled(bool(learning)):
        loss, measured = work(part)
    return torch.autograd.grad(loss, learning, allow_unused=True) if learning else (), measured


def lanes_for(model: LanguageModel, adapter: str | None) -> Lanes:
    """Several lanes where the packed trunk reads on a processor of several cores: the model's own modules have one adapter
    switched on at a time.
    """
    trunk = model.trunk(adapter)
    if trunk is None or model.device.type != "cpu":
        return Lanes(1, LONE_TOKENS)
    lanes = replace(cpu_lanes(), trunk=trunk if trunk.compiled else None)
    # Members of a team cut a batch alike however many cores each has.
    return lanes if team().size == 1 else replace(lanes, tokens=LANE_TOKENS)


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
    try:
        wait([pool.submit(torch.get_num_threads) for _ in range(count)])
    except BaseException:
        arrived.abort()
        raise
    finally:
        torch.set_num_threads(before)
    return pool
