"""REINFORCE without a critic: leave-one-out baselines (RLOO), or rewards to go normalised over the batch (REINFORCE++)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from heedful.config import RLOOSection
from heedful.functional.advantages import gae, group_advantages, kl_advantages, leave_one_out, token_rewards
from heedful.functional.masking import whiten
from heedful.models.policy import LanguageModel
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.policy_update import Batch, Estimate, Recipe
from heedful.training.rollout import Question, RewardFunction


def estimate(batch: Batch, kl_coef: float, settings: RLOOSection) -> Estimate:
    """A whole answer's score less its KL penalty against the other answers (rloo), or token by token (reinforce++)."""
    mask_BT, kl_BT, scores_B = batch["mask"], batch["kl"], batch["scores"]
    if settings.variant == "rloo":
        totals_B = scores_B - kl_coef * (kl_BT * mask_BT).sum(dim=1)
        advantages_BT = leave_one_out(totals_B, batch["groups"])[:, None] * mask_BT
    else:
        if settings.variant == "reinforce++-baseline":
            scores_B = group_advantages(scores_B, batch["groups"], scale=False)
        rewards_BT = token_rewards(scores_B, kl_BT, mask_BT, kl_coef=kl_coef)
        advantages_BT = gae(rewards_BT, torch.zeros_like(kl_BT), mask_BT, gamma=1.0, lam=1.0).returns_BT
    if settings.kl == "exact":
        advantages_BT = advantages_BT + kl_advantages(
            batch["old_logprobs"], batch["ref_logprobs"], kl_BT, mask_BT, kl_coef=kl_coef
        )
    if settings.variant != "rloo":
        advantages_BT = whiten(advantages_BT, mask_BT)
    return Estimate(advantages_BT, torch.zeros_like(advantages_BT), torch.ones(len(scores_B), dtype=torch.bool))


def rloo(
    model: LanguageModel,
    reward: RewardFunction,
    train: Sequence[Question],
    heldout: Sequence[Question],
    *,
    settings: RLOOSection,
    seed: int,
    max_staleness: int = 0,
) -> PolicyGradient:
    """The method, for the loop. max_staleness: see `PolicyGradient`."""
    recipe = Recipe("rloo", lambda batch, kl_coef: estimate(batch, kl_coef, settings))
    return PolicyGradient(
        model, reward, train, heldout, recipe=recipe, settings=settings, seed=seed, max_staleness=max_staleness
    )
