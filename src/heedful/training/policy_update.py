"""One phase of updates from a batch of rollouts: epochs, optimiser batches, and the loss of their parts.

Tests hold that the parts of an optimiser batch add up to it exactly, however it is cut.
"""

# B batch of rollouts, T response tokens, N response tokens laid end to end

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from heedful.config import PolicySection
from heedful.engine.batching import packed_batches
from heedful.engine.lanes import lanes_for
from heedful.functional.logprobs import token_scores
from heedful.functional.losses.ppo import entropy_bonus, kl_loss, policy_loss
from heedful.functional.masking import spread, token_weights
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.trunk.packed import Packed, pack, shared_tokens
from heedful.training.critic import Critic
from heedful.training.optimiser import Optimiser
from heedful.training.rollout import Rollout, require_same_weights

Batch = dict[str, Tensor]


class Estimate(NamedTuple):
    """advantages_BT: what each token is worth. returns_BT: what a critic should have said, zeros without one.

    kept_B: True for the rollouts that are learned from.
    """

    advantages_BT: Tensor
    returns_BT: Tensor
    kept_B: Tensor


@dataclass(frozen=True)
class Recipe:
    """What differs between the methods.

    stage: name in metrics and folders. estimate: from a batch (see `PolicyGradient.batch`) and the KL coefficient. average:
    what the loss is a mean over (masking.token_weights). kl_in_loss: the penalty is a term of the loss and not of the reward.
    """

    stage: str
    estimate: Callable[[Batch, float], Estimate]
    average: Literal["token", "sequence", "constant"] = "token"
    kl_in_loss: bool = False


@dataclass(frozen=True)
class PolicyUpdate:
    """Learns the adapter "policy", and a critic, from batches of rollouts."""

    model: LanguageModel
    optimiser: Optimiser
    recipe: Recipe
    settings: PolicySection
    seed: int
    critic: Critic | None
    stale: bool = False  # the sampler's weights are others than the trainer's, and known to be

    def learn(self, rollouts: Sequence[Rollout], batch: Batch, step: int, kl_coef: float) -> dict[str, float]:
        settings = self.settings
        rows = torch.nonzero(batch["kept"])[:, 0].tolist()
        totals: dict[str, float] = {}
        updates, norms, passes, gap = 0, 0.0, 0, 0.0
        for epoch in range(settings.epochs if rows else 0):
            generator = torch.Generator().manual_seed((self.seed * 100_003 + step) * 31 + epoch)
            order = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
            moved, seen = 0.0, 0.0
            for part in range(settings.num_minibatches):
                chosen = order[part :: settings.num_minibatches]
                if not chosen:
                    continue
                sums = self._accumulate(rollouts, batch, chosen, kl_coef)
                if updates == 0:
                    gap = sums["sampler_gap"]  # of the first optimiser batch, which nothing has been learned from
                    # Of stale answers the sampler compares what it has read again with the weights that drew.
                    if not self.stale:
                        require_same_weights(gap, self.model.dtype, step)
                norms += self.optimiser.update()
                updates += 1
                for name, value in sums.items():
                    totals[name] = totals.get(name, 0.0) + value
                moved, seen = moved + sums["update_kl"] * sums["num_tokens"], seen + sums["num_tokens"]
            passes += 1
            if settings.target_kl_update > 0 and moved / seen > settings.target_kl_update:
                break
        names = ("policy_loss", "value_loss", "kl_loss", "clip_fraction", "update_kl")
        return {name: totals.get(name, 0.0) / max(1, updates) for name in names if name in self._quantities()} | {
            "grad_norm": norms / max(1, updates),
            "sampler_gap": gap,
            "epochs": float(passes),
            "learning_rate": float(self.optimiser.adamw.param_groups[0]["lr"]),
        }

    def _quantities(self) -> list[str]:
        """What the parts of an optimiser batch measure, and add up to."""
        found = ["policy_loss", "clip_fraction", "update_kl", "sampler_gap"]
        return found + ["value_loss"] * (self.critic is not None) + ["kl_loss"] * self.recipe.kl_in_loss

    def _accumulate(self, rollouts: Sequence[Rollout], batch: Batch, chosen: list[int], kl_coef: float) -> dict[str, float]:
        """Gradients of one optimiser batch, in parts that fit into memory and add up to it exactly."""
        settings, model = self.settings, self.model
        num_tokens = int(batch["mask"][chosen].sum())
        weights_BT = torch.zeros_like(batch["advantages"])
        weights_BT[chosen] = token_weights(batch["mask"][chosen], self.recipe.average, max_tokens=settings.max_new_tokens)
        weighted = batch | {"advantages": batch["advantages"] * weights_BT, "weights": weights_BT}
        prompts, responses = [rollouts[i].answer.prompt_ids for i in chosen], [rollouts[i].answer.response_ids for i in chosen]

        def part_loss(part: list[int]) -> tuple[Tensor, dict[str, float]]:
            packed = pack([prompts[place] for place in part], [responses[place] for place in part], device=model.device)
            written = [own for place in part for own in rollouts[chosen[place]].answer.written]
            return self._part_loss(packed, written, weighted, [chosen[place] for place in part], num_tokens, kl_coef)

        lanes = lanes_for(model, POLICY)
        whole = shared_tokens(list(zip(prompts, responses, strict=True)))
        parts = packed_batches(prompts, responses, lanes.room(whole))
        costs = [shared_tokens([(prompts[place], responses[place]) for place in part]) for part in parts]
        found = lanes.each(parts, part_loss, costs=costs, learning=self.optimiser.tensors)
        return {name: sum(part[name] for part in found) for name in self._quantities()} | {"num_tokens": float(num_tokens)}

    def _part_loss(
        self, packed: Packed, written: list[bool], batch: Batch, rows: list[int], num_tokens: int, kl_coef: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Of some rows of an optimiser batch of num_tokens: their share of its loss, and of what it measures.

        written: True on those of the packed response tokens that the policy wrote, which are the batch's columns.
        """
        settings, model = self.settings, self.model
        at = {name: column[rows].to(model.device) for name, column in batch.items()}
        mask_BT = at["mask"]
        hidden_ND, targets_N = packed.predicting(model.read(packed, adapter=POLICY)), packed.targets_M
        if not all(written):  # what an environment wrote is read, and no loss knows of it
            own_N = torch.tensor(written, device=model.device)
            hidden_ND, targets_N = hidden_ND[own_N], targets_N[own_N]
        learn_entropy = settings.entropy_coef > 0
        fresh = token_scores(hidden_ND, model.head_VD, targets_N, temperature=settings.temperature, learn_entropy=learn_entropy)
        logprobs_BT = spread(fresh.logprobs_N, mask_BT)
        policy = policy_loss(
            logprobs_BT,
            at["old_logprobs"],
            at["advantages"],
            mask_BT,
            clip=settings.clip,
            clip_high=settings.clip_high or None,
            dual_clip=settings.dual_clip or None,
            num_tokens=num_tokens,
        )
        loss = policy.loss
        if learn_entropy:
            entropy = entropy_bonus(spread(fresh.entropy_N, mask_BT), mask_BT, num_tokens=num_tokens)
            loss = loss - settings.entropy_coef * entropy
        measured = {
            "policy_loss": float(policy.loss.detach()),
            "clip_fraction": float(policy.clipped_tokens) / num_tokens,
            "update_kl": float(policy.update_kl) / num_tokens,
            "sampler_gap": float((logprobs_BT.detach() - at["drawn"]).abs().sum()) / num_tokens,
        }
        if self.critic:
            values_BT = spread(self.critic.head(hidden_ND), mask_BT)
            value = self.critic.loss(values_BT, at["values"], at["returns"], mask_BT, num_tokens)
            loss = loss + self.critic.coef * value
            measured["value_loss"] = float(value.detach())
        if self.recipe.kl_in_loss:
            penalty = kl_loss(logprobs_BT, at["ref_logprobs"], mask_BT, at["weights"], num_tokens=num_tokens)
            loss = loss + kl_coef * penalty
            measured["kl_loss"] = float(penalty.detach())
        return loss, measured
