"""Who works on a run together: one process, or several that go through the same stages and share the heavy work.

Every member of a team runs the same code on the same inputs. Where the work is heavy (sampling, scoring, gradients) each does a
share of it and all get the whole; what is not shared is done by each alone, with equal results. Only member 0 keeps a run
directory, asks what lies outside (functions, addresses) and speaks to the user. docs/decisions/0009-scale.md says why.
"""

from __future__ import annotations

import heapq
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from heedful.errors import HeedfulError

T = TypeVar("T")


class LostWorkerError(HeedfulError):
    """A member of the team is gone, or did not arrive within the deadline. Nothing is wrong with the run: it can go on."""


class BrokenPassError(HeedfulError):
    """A pass that all make together failed on this member, and the others stand in the middle of it: nobody can be told."""


class InParts(Protocol):
    """What each member holds a part of, and all must therefore read at the same time."""

    def read_nothing(self, kind: int) -> None:
        """A pass of this kind that nobody needs, for the sake of those who need one."""


class Team(Protocol):
    """rank: of this process, 0 to size - 1. num_trainers: the first so many members compute gradients; all of them sample.
    fsdp: frozen bases are held in parts, one a member.
    """

    rank: int
    size: int
    num_trainers: int
    fsdp: bool

    def exchange(self, mine: Any, at: str) -> list[Any]:
        """What each member gave, in order of rank. at: what they meet for, as a message names it."""

    def add(self, flat: Any, at: str) -> None:
        """The sum over all members takes the place of a tensor, equal to the bit on each."""

    def take_in(self, one: InParts) -> int:
        """From now on members read this in step; its number is the same on all, which take things in in the same order."""

    def turn(self, number: int, kind: int) -> None:
        """Returns when all make a pass of this kind through the thing of that number, this member its own. Passes of others
        that come before are made along with them, and so are all that come while this member waits in `exchange` or `add`:
        that is how members make equally many passes though one has fewer parts, or none.
        """

    def lost(self, at: str, error: Exception) -> HeedfulError:
        """What an error in the middle of a pass is: a LostWorkerError where a partner is gone, else a BrokenPassError."""

    def says(self, doing: str) -> None:
        """Leaves word of what this member does now, for whoever asks where a team is stuck."""

    def begins(self, step: int) -> None:
        """Leaves word of the optimisation step that this member is in."""


class Alone:
    """A team of one."""

    rank, size, num_trainers, fsdp = 0, 1, 1, False

    def exchange(self, mine: Any, at: str) -> list[Any]:
        return [mine]

    def add(self, flat: Any, at: str) -> None:
        """One summand is the sum."""

    def take_in(self, one: InParts) -> int:
        return 0

    def turn(self, number: int, kind: int) -> None:
        """It is always one's own."""

    def lost(self, at: str, error: Exception) -> HeedfulError:
        return BrokenPassError(f"{at}: {type(error).__name__}: {error}")

    def says(self, doing: str) -> None:
        """Nobody asks."""

    def begins(self, step: int) -> None:
        """Nobody asks."""


ALONE = Alone()
_TEAM: ContextVar[Team] = ContextVar("team", default=ALONE)


def team() -> Team:
    """The team that this process works in."""
    return _TEAM.get()


@contextmanager
def working_in(one: Team) -> Iterator[None]:
    """Within the block, work is shared with this team."""
    token = _TEAM.set(one)
    try:
        yield
    finally:
        _TEAM.reset(token)


def together(work: Callable[[], T], at: str) -> list[T]:
    """What `work` gave on each member, in order of rank; within it a member is alone.

    Where it failed on one, all raise what the first of those raised, so that none waits for one that will not come.
    """
    ours = team()
    if ours.size == 1:
        return [work()]
    ours.says(at)
    found: Any = None
    failed: Exception | None = None
    try:
        with working_in(ALONE):
            found = work()
    except (LostWorkerError, BrokenPassError):
        raise
    except Exception as error:
        failed = error
    rows = ours.exchange((None if failed is None else _portable(failed, ours.rank), found), at)
    if failed is not None:
        raise failed
    for other, _ in rows:
        if other is not None:
            raise other
    return [value for _, value in rows]


def once(work: Callable[[], T], at: str) -> T:
    """What `work` gives on member 0, which alone does it."""
    rank = team().rank
    return together(lambda: work() if rank == 0 else None, at)[0]  # type: ignore[return-value]


def shared(
    costs: Sequence[int],
    work: Callable[[list[int]], Sequence[T]],
    at: str,
    *,
    members: int | None = None,
    skip: int = 0,
) -> list[T]:
    """One result for each piece of work, in order, each computed by one member.

    costs: of each piece; members get about as much each. work: of the pieces with these numbers, their results. members: how
    many take part, the first of the team; by default all of it. skip: so many of those do not, again the first.
    """
    ours = team()
    if ours.size == 1:
        return list(work(list(range(len(costs)))))
    shares = spread(costs, min(members or ours.size, ours.size) - skip)
    mine = shares[ours.rank - skip] if skip <= ours.rank < skip + len(shares) else []
    # The costs travel along: members that see other work would put results together that do not belong together.
    rows = together(lambda: (tuple(costs), list(work(mine)) if mine else []), at)
    assert all(seen == tuple(costs) for seen, _ in rows), f"{at}: members of the team see different work"
    found: dict[int, T] = {}
    for places, (_, values) in zip(shares, rows[skip : skip + len(shares)], strict=True):
        found |= dict(zip(places, values, strict=True))
    return [found[i] for i in range(len(costs))]


def spread(costs: Sequence[int], count: int) -> list[list[int]]:
    """The pieces in `count` shares of about equal cost: the dearest first, each to the share that has least. Each in order."""
    shares: list[list[int]] = [[] for _ in range(count)]
    laden = [(0, k) for k in range(count)]  # a heap: what each share has so far
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, least = laden[0]
        shares[least].append(i)
        heapq.heapreplace(laden, (load + costs[i], least))
    return [sorted(share) for share in shares]


def _portable(error: Exception, rank: int) -> HeedfulError:
    """The error as it can be raised by another process."""
    if isinstance(error, HeedfulError):
        try:
            again = pickle.loads(pickle.dumps(error))
            if isinstance(again, HeedfulError) and str(again) == str(error):
                return error
        except Exception:  # an exception whose arguments are not those of its class
            pass
        return HeedfulError(str(error))
    return HeedfulError(f"worker {rank}: {type(error).__name__}: {error}")
