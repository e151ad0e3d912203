"""PPO on the board: the same advantages, losses and loop as for language, with a move in the place of a token.

One step is a batch of games of the policy against itself. Each seat of a game is an episode: its own moves, with the outcome
as the reward of the last one. docs/methods/tictactoe.md explains each number that a step reports.
"""

# G games, E episodes (two a game), T own moves of an episode, P plies, A squares, N moves laid end to end

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heedful.functional.advantages import explained_variance, gae, token_rewards
from heedful.functional.losses.ppo import entropy_bonus, policy_loss, value_loss
from heedful.functional.masking import spread, whiten
from heedful.training.loop import Progress, Stop, run, silent
from heedful.training.metrics import Metrics
from heedful.training.optimiser import Optimiser, warmup
from heedful.training.tictactoe.agent import Agent, Games, play_games
from heedful.training.tictactoe.proof import measure
from heedful.training.tictactoe.settings import BoardPPOSection


class BoardPPO:
    """The method: one step is a batch of games and `epochs` passes over their moves."""

    def __init__(self, settings: BoardPPOSection, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.agent = Agent(settings.width, seed)
        learned = dict(self.agent.named_parameters())
        self.optimiser = Optimiser({"agent": (learned, settings.learning_rate)}, max_grad_norm=settings.max_grad_norm)

    def step(self, step: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + step)
        games = play_games(self.agent, self.settings.games, self._openings(generator), generator)
        batch = self._batch(games)
        self.optimiser.set_rate(warmup(step, self.settings.warmup_steps))
        learned = self._learn(batch, generator)
        mask_ET = batch["mask"]
        first_G = games.chosen_BP[:, 0]
        return {
            "drawn": float((games.outcomes_B[first_G] == 0).float().mean()) if bool(first_G.any()) else 0.0,
            "length": float(games.played_BP.sum(1).float().mean()),
            "explained_variance": explained_variance(batch["returns"], batch["values"], mask_ET),
            **learned,
        }

    def _openings(self, generator: torch.Generator) -> Tensor:
        """How many moves at random each game begins with: without them the states off the beaten track are never seen."""
        settings = self.settings
        plies_G = torch.randint(0, settings.max_opening + 1, (settings.games,), generator=generator)
        opened_G = torch.rand(settings.games, generator=generator) < settings.opening_share
        return torch.where(opened_G, plies_G, 0)

    def _batch(self, games: Games) -> dict[str, Tensor]:
        """Episodes (E, T) with advantages and returns, the mask True on moves that the policy chose."""
        settings = self.settings
        mask_ET = by_seat(games.chosen_BP)
        values_ET = by_seat(games.values_BP)
        scores_E = torch.cat([games.outcomes_B, -games.outcomes_B]).float()
        rewards_ET = token_rewards(scores_E, torch.zeros_like(values_ET), mask_ET, kl_coef=0.0)
        found = gae(rewards_ET, values_ET, mask_ET, gamma=settings.gamma, lam=settings.lam)
        return {
            "boards": by_seat(games.boards_BPA),
            "squares": by_seat(games.squares_BP),
            "old_logprobs": by_seat(games.logprobs_BP),
            "values": values_ET,
            "mask": mask_ET,
            "advantages": whiten(found.advantages_BT, mask_ET),
            "returns": found.returns_BT,
        }

    def _learn(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, float]:
        settings = self.settings
        episodes = batch["mask"].any(1).nonzero()[:, 0]
        names = ("policy_loss", "value_loss", "entropy", "clip_fraction", "update_kl", "grad_norm")
        totals = dict.fromkeys(names, 0.0)
        updates = 0
        for _ in range(settings.epochs):
            order = episodes[torch.randperm(len(episodes), generator=generator)]
            for part in order.chunk(settings.num_minibatches):
                measured = self._update({name: column[part] for name, column in batch.items()})
                totals = {name: totals[name] + measured[name] for name in names}
                updates += 1
        return {name: totals[name] / max(1, updates) for name in names}

    def _update(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One optimiser step on some episodes, by the three terms of the PPO objective."""
        settings, mask_ET, agent = self.settings, batch["mask"], self.agent
        num_moves = int(mask_ET.sum())
        scores_NA, values_N = agent(batch["boards"][mask_ET])
        logprobs_NA = torch.log_softmax(scores_NA, dim=1)
        # Taken squares: probability 0, log -inf, and 0 * -inf is not a number.
        entropy_N = -(logprobs_NA.exp() * logprobs_NA.masked_fill(logprobs_NA == -torch.inf, 0.0)).sum(1)
        logprobs_N = logprobs_NA.gather(1, batch["squares"][mask_ET][:, None])[:, 0]
        policy = policy_loss(
            spread(logprobs_N, mask_ET),
            batch["old_logprobs"],
            batch["advantages"],
            mask_ET,
            clip=settings.clip,
            num_tokens=num_moves,
        )
        value = value_loss(
            spread(values_N, mask_ET),
            batch["values"],
            batch["returns"],
            mask_ET,
            clip=settings.value_clip,
            num_tokens=num_moves,
        )
        entropy = entropy_bonus(spread(entropy_N, mask_ET), mask_ET, num_tokens=num_moves)
        loss = policy.loss + settings.value_coef * value - settings.entropy_coef * entropy
        loss.backward()  # type: ignore[no-untyped-call]
        return {
            "policy_loss": float(policy.loss.detach()),
            "value_loss": float(value.detach()),
            "entropy": float(entropy.detach()),
            "clip_fraction": float(policy.clipped_tokens) / num_moves,
            "update_kl": float(policy.update_kl) / num_moves,
            "grad_norm": self.optimiser.update(),
        }

    def evaluate(self, step: int) -> dict[str, float]:
        return measure(self.agent.best)

    def state_dict(self) -> dict[str, Any]:
        return self.optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state)


def by_seat(columns_GP: Tensor) -> Tensor:
    """(G, P, ...) in the order of moves -> (E, T, ...): X's own moves of all games, then O's, with a place to spare."""
    x, o = columns_GP[:, 0::2], columns_GP[:, 1::2]
    return torch.cat([x, torch.cat([o, torch.zeros_like(x[:, :1])], dim=1)])


def train(folder: Path, *, settings: BoardPPOSection, seed: int, progress: Progress = silent) -> tuple[Agent, int]:
    """Trains with checkpoints in `folder`, until the agent cannot be beaten; returns it and the steps taken."""
    method = BoardPPO(settings, seed)
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
