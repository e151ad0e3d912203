"""What an agent is worth, by looking at every game it can get into.

The agent always takes its best square, so the games differ in the opponent's moves only, and there are few enough of those
(fewer than 400 for X, fewer than 1,000 for O) to go through them all. "Never lost" is then a proof and not a sample.
"""

# B boards, A squares

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from heedful.training.tictactoe import board
from heedful.training.tictactoe.board import EMPTY, X

# Boards (B, A) to a square each, (B,).
Choose = Callable[[Tensor], Tensor]
SEATS = {"x": board.X, "o": board.O}


@dataclass(frozen=True)
class Tally:
    """Games or lines of play by how they ended for the agent. win_rate: share of wins, lines weighed by their chance."""

    wins: int
    draws: int
    losses: int
    win_rate: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def every_line(choose: Choose, seat: int, *, perfect_only: bool = False) -> Tally:
    """All lines of play of an agent in `seat` (X or O). Their chances are those of an
    opponent who replies at random.

    perfect_only: the opponent replies only with moves that minimax finds best, with each of them.
    """
    boards_BA, chance_B = board.empty(1), torch.ones(1, dtype=torch.float64)
    counts = {1: 0, 0: 0, -1: 0}
    won = 0.0
    while len(boards_BA):
        over_B = board.over(boards_BA)
        outcome_B = board.winner(boards_BA) * seat
        for outcome in counts:
            counts[outcome] += int((over_B & (outcome_B == outcome)).sum())
        won += float(chance_B[over_B & (outcome_B == 1)].sum())
        boards_BA, chance_B = boards_BA[~over_B], chance_B[~over_B]
        if not len(boards_BA):
            break
        # All boards of a ply have the same side to move.
        if int(board.mover(boards_BA)[0]) == seat:
            boards_BA = board.play(boards_BA, choose(boards_BA))
        else:
            allowed_BA = perfect_replies(boards_BA) if perfect_only else boards_BA == EMPTY
            rows, squares = allowed_BA.nonzero(as_tuple=True)
            chance_B = (chance_B / allowed_BA.sum(1))[rows]
            boards_BA = board.play(boards_BA[rows], squares)
    return Tally(counts[1], counts[0], counts[-1], won)


def perfect_replies(boards_BA: Tensor) -> Tensor:
    """True on the squares that minimax finds best, (B, A)."""
    allowed_BA = torch.zeros_like(boards_BA, dtype=torch.bool)
    for row, marks in enumerate(boards_BA.tolist()):
        allowed_BA[row, board.best_squares(tuple(marks))] = True
    return allowed_BA


@lru_cache(maxsize=1)
def positions() -> tuple[Tensor, Tensor]:
    """Every board with a move to make that legal play can reach, and on which squares minimax would mark; both (B, A)."""
    found: dict[board.Board, None] = {}
    waiting: list[board.Board] = [(EMPTY,) * board.SQUARES]
    while waiting:
        here = waiting.pop()
        if here not in found and not board.winner_of(here) and EMPTY in here:
            found[here] = None
            waiting += board.children(here).values()
    boards_BA = torch.tensor(list(found))
    return boards_BA, perfect_replies(boards_BA)


def perfect_moves(choose: Choose) -> float:
    """Share of all positions, also of those the agent would never get into, in which its move keeps the best outcome."""
    boards_BA, best_BA = positions()
    return float(best_BA.gather(1, choose(boards_BA)[:, None]).float().mean())


def random_games(choose: Choose, seat: int, count: int, seed: int) -> Tally:
    """Games against an opponent that marks an empty square at random."""
    generator = torch.Generator().manual_seed(seed)
    boards_BA = board.empty(count)
    for ply in range(board.SQUARES):
        going_B = ~board.over(boards_BA)
        if not bool(going_B.any()):
            break
        here_BA = boards_BA[going_B]
        if (ply % 2 == 0) == (seat == X):
            squares_B = choose(here_BA)
        else:
            squares_B = torch.multinomial(board.legal(here_BA).float(), 1, generator=generator)[:, 0]
        boards_BA = boards_BA.masked_scatter(going_B[:, None].expand_as(boards_BA), board.play(here_BA, squares_B))
    outcome_B = board.winner(boards_BA) * seat
    wins, losses = int((outcome_B == 1).sum()), int((outcome_B == -1).sum())
    return Tally(wins, count - wins - losses, losses, wins / count)


def measure(choose: Choose) -> dict[str, float]:
    """What a training log holds of an agent; `unbeaten` 1 proves that it cannot lose."""
    x, o = (every_line(choose, seat) for seat in SEATS.values())
    lines = sum(tally.wins + tally.draws + tally.losses for tally in (x, o))
    return {
        "unbeaten": 1 - (x.losses + o.losses) / lines,
        "perfect_moves": perfect_moves(choose),
        "lost_as_x": float(x.losses),
        "lost_as_o": float(o.losses),
        "wins_random_x": x.win_rate,
        "wins_random_o": o.win_rate,
    }


def certificate(choose: Choose, seed: int, games: int = 1000) -> dict[str, dict[str, dict[str, float]]]:
    """All lines, lines of perfect opponents, and games against a random one, in both seats."""
    return {
        name: {
            "every_line": every_line(choose, seat).as_dict(),
            "perfect": every_line(choose, seat, perfect_only=True).as_dict(),
            "random": random_games(choose, seat, games, seed).as_dict(),
        }
        for name, seat in SEATS.items()
    }
