"""Implicit Q-learning from recorded episodes, offline: nothing is sampled while it learns.

The trunk is frozen, so its hidden states are read once and the heads learn from them alone. The same method learns paths
through a graph (tests/training/test_ilql_graph.py). docs/methods/ilql.md explains each number that a step reports.
"""

# B episodes of a batch, T actions (response tokens), N actions laid end to end, D features, V actions to choose from, R rank

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from heedful.config import ILQLSection
from heedful.functional.logprobs import token_scores
from heedful.functional.losses.ilql import ilql_loss, next_values, polyak
from heedful.functional.masking import spread
from heedful.models.ilql import ILQLHeads
from heedful.training.loop import Progress, run, shuffled, silent
from heedful.training.metrics import Metrics
from heedful.training.optimiser import Optimiser, copy_into, warmup


@dataclass(frozen=True)
class Episode:
    """What was seen before each action, the actions, and their rewards."""

    features_TD: Tensor
    actions_T: Tensor
    rewards_T: Tensor


class ILQL:
    """The method: one step is one optimiser step on a batch of episodes.

    heldout: pairs of episodes of which the first is the better one.
    """

    def __init__(
        self,
        heads: ILQLHeads,
        train: Sequence[Episode],
        heldout: Sequence[tuple[Episode, Episode]],
        *,
        settings: ILQLSection,
        seed: int,
    ) -> None:
        self.heads, self.train, self.heldout, self.settings, self.seed = heads, train, heldout, settings, seed
        learned = {name: tensor for name, tensor in heads.named_parameters() if tensor.requires_grad}
        self.optimiser = Optimiser({"heads": (learned, settings.learning_rate)}, max_grad_norm=settings.max_grad_norm)

    def step(self, step: int) -> dict[str, float]:
        settings, heads = self.settings, self.heads
        size = min(settings.batch_episodes, len(self.train))
        batch = [self.train[i] for i in islice(shuffled(len(self.train), self.seed, start=step * size), size)]
        hidden_ND = torch.cat([episode.features_TD for episode in batch])
        actions_N = torch.cat([episode.actions_T for episode in batch])
        rewards_BT = pad_sequence([episode.rewards_T for episode in batch], batch_first=True)
        lengths_B = torch.tensor([len(episode.actions_T) for episode in batch], device=rewards_BT.device)
        mask_BT = torch.arange(rewards_BT.shape[1], device=rewards_BT.device) < lengths_B[:, None]
        base_N, z_NR = heads.q(heads.normal(hidden_ND))
        keys_VR = heads.q.keys(heads.embedding_VD)
        q_N = base_N + (z_NR * keys_VR[actions_N]).sum(1)
        q_logprobs_N = self._q_logprobs(z_NR, keys_VR, actions_N, step)
        values_N, target_q_N = heads.values(hidden_ND), heads.target_q_of(hidden_ND, actions_N)
        values_BT = spread(values_N, mask_BT)
        found = ilql_loss(
            spread(q_N, mask_BT),
            spread(q_logprobs_N, mask_BT),
            spread(target_q_N, mask_BT),
            values_BT,
            next_values(values_BT, mask_BT),
            rewards_BT,
            mask_BT,
            gamma=settings.gamma,
            expectile=settings.expectile,
            cql_coef=settings.cql_coef,
            num_tokens=len(actions_N),
        )
        self.optimiser.set_rate(warmup(step, settings.warmup_steps))
        found.loss.backward()  # type: ignore[no-untyped-call]
        norm = self.optimiser.update()
        slow, quick = list(heads.target.parameters()), list(heads.q.parameters())
        copy_into(slow, [polyak(old, new, rate=settings.polyak) for old, new in zip(slow, quick, strict=True)])
        return {
            "td_loss": float(found.td),
            "expectile_loss": float(found.expectile),
            "cql_loss": float(found.cql),
            "q": float(q_N.detach().mean()),
            "value": float(values_N.detach().mean()),
            "advantage_sd": float((q_N - values_N).detach().std(correction=0)),
            "grad_norm": norm,
            "learning_rate": float(self.optimiser.adamw.param_groups[0]["lr"]),
        }

    def _q_logprobs(self, z_NR: Tensor, keys_VR: Tensor, actions_N: Tensor, step: int) -> Tensor:
        """log softmax(Q(s, .)) at each action, (N,), or an estimate from cql_tokens of them: weighed up, and 0 elsewhere.

        b(s) moves all actions alike, so the softmax of Q is that of z . keys, which is never held whole.
        """
        num_tokens, wanted = len(actions_N), self.settings.cql_tokens
        if not 0 < wanted < num_tokens:
            return token_scores(z_NR, keys_VR, actions_N).logprobs_N
        generator = torch.Generator().manual_seed(self.seed * 100_003 + step)
        picked = torch.randperm(num_tokens, generator=generator)[:wanted].to(actions_N.device)
        found = token_scores(z_NR[picked], keys_VR, actions_N[picked]).logprobs_N * (num_tokens / wanted)
        return torch.zeros(num_tokens, device=found.device).index_put((picked,), found)

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """How often the better episode of a held-out pair has the higher mean Q, and the higher mean advantage."""
        if not self.heldout:
            return {}
        q, advantage = 0.0, 0.0
        for better, worse in self.heldout:
            (first_q, first_a), (second_q, second_a) = self.worth(better), self.worth(worse)
            q += 0.5 * ((first_q > second_q) + (first_q >= second_q))
            advantage += 0.5 * ((first_a > second_a) + (first_a >= second_a))
        return {
            "heldout_accuracy": q / len(self.heldout),
            "heldout_advantage_accuracy": advantage / len(self.heldout),
        }

    @torch.no_grad()
    def worth(self, episode: Episode) -> tuple[float, float]:
        """Mean over an episode's actions of Q, and of Q less V, by the slow copy. 0 for an episode without actions."""
        if not len(episode.actions_T):
            return 0.0, 0.0
        q_T = self.heads.target_q_of(episode.features_TD, episode.actions_T)
        return float(q_T.mean()), float((q_T - self.heads.values(episode.features_TD)).mean())

    def state_dict(self) -> dict[str, Any]:
        return {
            "heads": self.optimiser.state_dict(),
            "target": [p.detach().clone() for p in self.heads.target.parameters()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["heads"])
        copy_into(list(self.heads.target.parameters()), state["target"])


def train(
    heads: ILQLHeads,
    train_episodes: Sequence[Episode],
    heldout: Sequence[tuple[Episode, Episode]],
    folder: Path,
    *,
    settings: ILQLSection,
    seed: int,
    progress: Progress = silent,
) -> tuple[ILQL, int]:
    """Trains the heads in place with checkpoints in `folder`; returns the method and the steps taken."""
    method = ILQL(heads, train_episodes, heldout, settings=settings, seed=seed)
    batches = -(-len(train_episodes) // min(settings.batch_episodes, len(train_episodes)))
    outcome = run(
        method,
        folder / "checkpoint.pt",
        lambda first: Metrics(folder.parent, "ilql", first),
        max_steps=settings.epochs * batches,
        checkpoint_every=settings.checkpoint_every,
        eval_every=settings.eval_every,
        progress=progress,
    )
    return method, outcome.steps
