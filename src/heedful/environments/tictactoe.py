"""Tic-tac-toe in words: the policy names a square, the opponent answers with another, until the game is over."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Literal

from heedful.engine.episodes import Step
from heedful.errors import DataError
from heedful.records import Message, Prompt
from heedful.training.tictactoe.board import EMPTY, SQUARES, Board, O, X, best_squares, children, winner_of
from heedful.training.tictactoe.play import picture

SEATS = {"x": X, "o": O}


class TicTacToe:
    """Reward at the end: 1 won, 0 drawn, -1 lost or a square that cannot be taken. A prompt's field `seat` is "x" or "o"."""

    def __init__(self, opponent: Literal["random", "perfect"] = "random") -> None:
        self.opponent = opponent
        self.board: Board = (EMPTY,) * SQUARES
        self.seat = X
        self.chance = random.Random(0)

    def reset(self, prompt: Prompt, *, seed: int) -> tuple[tuple[Message, ...], Mapping[str, float]]:
        seat = (prompt.model_extra or {}).get("seat", "x")
        if seat not in SEATS:
            raise DataError(f"prompt {prompt.id!r}: seat {seat!r} is neither 'x' nor 'o'")
        self.board, self.seat, self.chance = (EMPTY,) * SQUARES, SEATS[seat], random.Random(seed)
        if self.seat == O:
            self._reply()
        shown = Message(role="user", content=f"{prompt.messages[-1].content}\n{picture(self.board)}")
        return (*prompt.messages[:-1], shown), {"won": 0.0, "drawn": 0.0, "lost": 0.0, "illegal": 0.0}

    def step(self, action: str, *, cut: bool = False) -> Step:
        named = re.search(r"\d+", action)
        square = int(named.group()) - 1 if named and len(named.group()) == 1 else -1
        moves = children(self.board)
        if square not in moves:
            return Step("", -1.0, True, False, {"lost": 1.0, "illegal": 1.0})
        self.board = moves[square]
        if not self._over():
            self._reply()
        if not self._over():
            return Step(picture(self.board), 0.0, False, False, {})
        outcome = winner_of(self.board) * self.seat
        return Step("", float(outcome), True, False, {{1: "won", 0: "drawn", -1: "lost"}[outcome]: 1.0})

    def ends_turn(self, written: str) -> bool:
        return False

    def _over(self) -> bool:
        return bool(winner_of(self.board)) or EMPTY not in self.board

    def _reply(self) -> None:
        moves = children(self.board)
        squares = best_squares(self.board) if self.opponent == "perfect" else sorted(moves)
        self.board = moves[self.chance.choice(squares)]
