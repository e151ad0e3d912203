"""The environment: rules of tic-tac-toe on many boards at once, and perfect play.

State: a board and who moves. Action: the square 0-8 that is marked. Reward: at the end only, 1 won, 0 drawn, -1 lost.
"""

# B boards, A squares (the nine actions), F features of a state

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

SQUARES = 9
FEATURES = 3 * SQUARES
X, O, EMPTY = 1, -1, 0  # noqa: E741
LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


def empty(count: int) -> Tensor:
    """Boards (B, A) before the first move."""
    return torch.zeros(count, SQUARES, dtype=torch.long)


def mover(boards_BA: Tensor) -> Tensor:
    """Who moves, (B,): X has the first move, so X while both have made as many."""
    return torch.where(boards_BA.sum(1) == 0, X, O)


def legal(boards_BA: Tensor) -> Tensor:
    """True on empty squares, (B, A)."""
    return boards_BA == EMPTY


def play(boards_BA: Tensor, squares_B: Tensor) -> Tensor:
    """The boards after the mover's mark; the given ones stay as they are."""
    assert bool(legal(boards_BA).gather(1, squares_B[:, None]).all()), "a square was taken twice"
    return boards_BA.scatter(1, squares_B[:, None], mover(boards_BA)[:, None])


def winner(boards_BA: Tensor) -> Tensor:
    """X, O or 0 where nobody has three in a row, (B,)."""
    sums_BL = boards_BA[:, torch.tensor(LINES)].sum(2)
    return (sums_BL == 3).any(1).long() - (sums_BL == -3).any(1).long()


def over(boards_BA: Tensor) -> Tensor:
    """Whether the game has ended, (B,)."""
    return (winner(boards_BA) != 0) | ~legal(boards_BA).any(1)


def features(boards_BA: Tensor) -> Tensor:
    """What an agent sees, (B, F) float32: its own marks, the other's, the empty squares. X and O see alike."""
    seen_BA = boards_BA * mover(boards_BA)[:, None]
    return torch.cat([seen_BA == 1, seen_BA == -1, seen_BA == 0], dim=1).float()


Board = tuple[int, ...]


@cache
def outcome_of_best_play(board: Board) -> int:
    """Minimax: 1, 0 or -1 for the side to move when both play perfectly."""
    won = winner_of(board)
    if won:
        return -1  # the side that moved last has won
    scores = [-outcome_of_best_play(child) for child in children(board).values()]
    return max(scores, default=0)


def best_squares(board: Board) -> list[int]:
    """All moves that keep the best outcome."""
    scores = {square: -outcome_of_best_play(child) for square, child in children(board).items()}
    return [square for square, score in scores.items() if score == max(scores.values())]


def children(board: Board) -> dict[int, Board]:
    """The boards one move on, by the square that is marked."""
    side = X if sum(board) == 0 else O
    return {i: (*board[:i], side, *board[i + 1 :]) for i in range(SQUARES) if board[i] == EMPTY}


def winner_of(board: Board) -> int:
    """`winner` of a single board."""
    sums = [sum(board[square] for square in line) for line in LINES]
    return X if 3 in sums else O if -3 in sums else 0
