"""Proximal policy optimisation against a reward model, with a KL penalty from the frozen reference.

Advantages by generalised advantage estimation from a value head on the policy's trunk. docs/methods/ppo.md explains the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from heedful.config import PPOSection
from heedful.functional.advantages import gae, kl_advantages, token_rewards
from heedful.functional.masking import whiten
from heedful.models.policy import LanguageModel
from heedful.training.critic import Critic
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.policy_update import Batch, Estimate, Recipe
from heedful.training.rollout import Question, RewardFunction


def estimate(batch: Batch, kl_coef: float, settings: PPOSection) -> Estimate:
    """Generalised advantages of score and KL penalty."""
    rewards_BT = token_rewards(batch["scores"], batch["kl"], batch["mask"], kl_coef=kl_coef)
    found = gae(rewards_BT, batch["values"], batch["mask"], gamma=settings.gamma, lam=settings.lam)
    advantages_BT = found.advantages_BT
    if settings.kl == "exact":
        advantages_BT = advantages_BT + kl_advantages(
            batch["old_logprobs"], batch["ref_logprobs"], batch["kl"], batch["mask"], kl_coef=kl_coef
        )
    if settings.whiten_advantages:
        advantages_BT = whiten(advantages_BT, batch["mask"])
    return Estimate(advantages_BT, found.returns_BT, torch.ones(len(advantages_BT), dtype=torch.bool))


def ppo(
    model: LanguageModel,
    reward: RewardFunction,
    train: Sequence[Question],
    heldout: Sequence[Question],
    *,
    settings: PPOSection,
    seed: int,
    max_staleness: int = 0,
) -> PolicyGradient:
    """The method, for the loop. max_staleness: see `PolicyGradient`."""
    critic = Critic(
        model,
        learning_rate=settings.value_learning_rate,
        warmup_steps=settings.critic_warmup_steps,
        clip=settings.value_clip,
        coef=settings.value_coef,
    )
    recipe = Recipe("ppo", lambda batch, kl_coef: estimate(batch, kl_coef, settings))
    return PolicyGradient(
        *(model, reward, train, heldout),
        recipe=recipe,
        settings=settings,
        seed=seed,
        critic=critic,
        max_staleness=max_staleness,
    )
