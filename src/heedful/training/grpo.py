"""Group-relative policy optimisation: an answer against the other answers to its prompt, and the KL penalty in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from heedful.config import GRPOSection
from heedful.functional.advantages import equal_groups, group_advantages
from heedful.models.policy import LanguageModel
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.policy_update import Batch, Estimate, Recipe
from heedful.training.rollout import Question, RewardFunction

# What the loss is a mean over: GRPO's own, what Dr. GRPO and DAPO put in its place.
AVERAGES: dict[str, Literal["token", "sequence", "constant"]] = {"grpo": "sequence", "dr_grpo": "constant", "dapo": "token"}


def estimate(batch: Batch, settings: GRPOSection) -> Estimate:
    """One advantage an answer, the same at each of its tokens; groups whose scores are all equal are left out."""
    scores_B, groups_B = batch["scores"], batch["groups"]
    advantages_B = group_advantages(scores_B, groups_B, scale=settings.variant != "dr_grpo")
    advantages_BT = advantages_B[:, None] * batch["mask"]
    return Estimate(advantages_BT, torch.zeros_like(advantages_BT), ~equal_groups(scores_B, groups_B))


def grpo(
    model: LanguageModel,
    reward: RewardFunction,
    train: Sequence[Question],
    heldout: Sequence[Question],
    *,
    settings: GRPOSection,
    seed: int,
    max_staleness: int = 0,
) -> PolicyGradient:
    """The method, for the loop. max_staleness: see `PolicyGradient`."""
    recipe = Recipe(
        "grpo", lambda batch, _: estimate(batch, settings), average=AVERAGES[settings.variant], kl_in_loss=settings.kl_coef > 0
    )
    return PolicyGradient(
        model, reward, train, heldout, recipe=recipe, settings=settings, seed=seed, max_staleness=max_staleness
    )
