"""Q-learning on the board, offline: perfect play from games in which both sides moved at random.

The losses are those of language (functional/losses/ilql.py). Both sides are learned as one: the state that a move leads to is
valued by the other side, so its value enters with the opposite sign. docs/methods/tictactoe.md explains what a step reports.
"""

# B games, P plies (actions of both sides), A squares, N moves laid end to end

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heedful.functional.losses.ilql import ilql_loss, next_values, polyak
from heedful.functional.masking import masked_mean, spread
from heedful.training.loop import Progress, Stop, run, shuffled, silent
from heedful.training.metrics import Metrics
from heedful.training.optimiser import Optimiser, copy_into, warmup
from heedful.training.tictactoe.agent import Agent, Games, play_games
from heedful.training.tictactoe.proof import measure
from heedful.training.tictactoe.settings import BoardQSection


class BoardQ:
    """The method: one step is one optimiser step on a batch of games from the data."""

    def __init__(self, settings: BoardQSection, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.agent = Agent(settings.width, seed)
        self.target = copy.deepcopy(self.agent).requires_grad_(False)
        learned = dict(self.agent.named_parameters())
        self.optimiser = Optimiser({"agent": (learned, settings.learning_rate)}, max_grad_norm=settings.max_grad_norm)
        generator = torch.Generator().manual_seed(seed)
        self.data = play_games(None, settings.games, torch.zeros(settings.games), generator)

    def step(self, step: int) -> dict[str, float]:
        settings, data = self.settings, self.data
        rows = list(islice(shuffled(settings.games, self.seed, start=step * settings.batch_games), settings.batch_games))
        mask_BP = data.played_BP[rows]
        num_moves = int(mask_BP.sum())
        boards_NA, squares_N1 = data.boards_BPA[rows][mask_BP], data.squares_BP[rows][mask_BP][:, None]
        q_NA, values_N = self.agent(boards_NA)
        with torch.no_grad():
            target_q_N = self.target(boards_NA)[0].gather(1, squares_N1)[:, 0]
        q_BP = spread(q_NA.gather(1, squares_N1)[:, 0], mask_BP)
        values_BP = spread(values_N, mask_BP)
        found = ilql_loss(
            q_BP,
            spread(torch.log_softmax(q_NA, dim=1).gather(1, squares_N1)[:, 0], mask_BP),
            spread(target_q_N, mask_BP),
            values_BP,
            -next_values(values_BP, mask_BP),
            self._rewards(data, rows),
            mask_BP,
            gamma=settings.gamma,
            expectile=settings.expectile,
            cql_coef=settings.cql_coef,
            num_tokens=num_moves,
        )
        self.optimiser.set_rate(warmup(step, settings.warmup_steps))
        found.loss.backward()  # type: ignore[no-untyped-call]
        norm = self.optimiser.update()
        followed = [
            polyak(old, new, rate=settings.polyak)
            for old, new in zip(self.target.parameters(), self.agent.parameters(), strict=True)
        ]
        copy_into(list(self.target.parameters()), followed)
        return {
            "td_loss": float(found.td),
            "expectile_loss": float(found.expectile),
            "cql_loss": float(found.cql),
            "q": float(masked_mean(q_BP.detach(), mask_BP)),
            "value": float(masked_mean(values_BP.detach(), mask_BP)),
            "grad_norm": norm,
        }

    @staticmethod
    def _rewards(data: Games, rows: list[int]) -> Tensor:
        """1 on a winning move, seen by the side that makes it; a draw's last move earns 0. Nobody loses by his own move."""
        played_BP = data.played_BP[rows]
        last_B = played_BP.sum(1) - 1
        rewards_BP = torch.zeros(played_BP.shape)
        won_B = (data.outcomes_B[rows] != 0).float()
        return rewards_BP.scatter(1, last_B[:, None], won_B[:, None])

    def evaluate(self, step: int) -> dict[str, float]:
        return measure(self.agent.best)

    def state_dict(self) -> dict[str, Any]:
        return {
            "agent": self.optimiser.state_dict(),
            "target": [p.detach().clone() for p in self.target.parameters()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["agent"])
        copy_into(list(self.target.parameters()), state["target"])


def train(folder: Path, *, settings: BoardQSection, seed: int, progress: Progress = silent) -> tuple[Agent, int]:
    """Trains with checkpoints in `folder`, until the agent cannot be beaten; returns it and the steps taken."""
    method = BoardQ(settings, seed)
    outcome = run(
        method,
        folder / "checkpoint.pt",
        lambda first: Metrics(folder.parent, folder.name, first),
        max_steps=settings.max_steps,
        checkpoint_every=settings.checkpoint_every,
        eval_every=settings.eval_every,
        stop=Stop("unbeaten", 1.0),
        progress=progress,
    )
    return method.agent, outcome.steps
