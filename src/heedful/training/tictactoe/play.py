"""A person against the agent in the terminal: digits 1-9 mark squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from heedful.training.tictactoe import board
from heedful.training.tictactoe.board import EMPTY, O, X
from heedful.training.tictactoe.proof import Choose

MARKS = {X: "X", O: "O"}
LEAVE = ("q", "quit")


class LeaveError(Exception):
    """The person has had enough."""


def picture(marks: Sequence[int]) -> str:
    """The board in five lines; empty squares show the digit that marks them."""
    cells = [MARKS.get(mark, str(square + 1)) for square, mark in enumerate(marks)]
    rows = [f" {cells[start]} | {cells[start + 1]} | {cells[start + 2]}" for start in (0, 3, 6)]
    return "\n---+---+---\n".join(rows)


def read_square(marks: Sequence[int], ask: Callable[[str], str], say: Callable[[str], None]) -> int:
    """Asks until an empty square is named. Raises LeaveError at "q" or at the end of the input."""
    free = [str(square + 1) for square, mark in enumerate(marks) if mark == EMPTY]
    while True:
        try:
            typed = ask(f"your square ({', '.join(free)}; q leaves): ").strip().lower()
        except EOFError:
            raise LeaveError from None
        if typed in LEAVE:
            raise LeaveError
        if typed in free:
            return int(typed) - 1
        taken = typed in {str(square + 1) for square in range(board.SQUARES)}
        say(f"square {typed} is taken" if taken else f"{typed!r} is no square: type one digit of {', '.join(free)}")


def play_one(choose: Choose, person: int, ask: Callable[[str], str], say: Callable[[str], None]) -> int:
    """One game with the person as X or O; returns X, O or 0 as its outcome."""
    boards_BA = board.empty(1)
    while not bool(board.over(boards_BA)):
        marks = boards_BA[0].tolist()
        if int(board.mover(boards_BA)) == person:
            say(picture(marks))
            square = read_square(marks, ask, say)
        else:
            square = int(choose(boards_BA))
            say(f"{MARKS[-person]} takes {square + 1}")
        boards_BA = board.play(boards_BA, torch.tensor([square]))
    say(picture(boards_BA[0].tolist()))
    return int(board.winner(boards_BA))


def play_many(
    choose: Choose, ask: Callable[[str], str], say: Callable[[str], None], *, seat: int | None = None
) -> dict[str, int]:
    """Games until the person leaves; how they ended for the person. seat: X or O; None changes seats each game."""
    tally = {"won": 0, "drawn": 0, "lost": 0}
    number = 0
    try:
        while True:
            person = seat if seat is not None else (X, O)[number % 2]
            number += 1
            say(f"\ngame {number}: you are {MARKS[person]} and {'begin' if person == X else 'the agent begins'}")
            outcome = play_one(choose, person, ask, say) * person
            tally[{1: "won", 0: "drawn", -1: "lost"}[outcome]] += 1
            say({1: "you win", 0: "a draw", -1: "the agent wins"}[outcome])
    except (LeaveError, KeyboardInterrupt):
        say(f"\nyou: {tally['won']} won, {tally['drawn']} drawn, {tally['lost']} lost")
    return tally
