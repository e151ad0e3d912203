"""Which method optimises the policy, and with which section of the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from heedful.config import Config, PolicySection
from heedful.models.policy import LanguageModel
from heedful.training.grpo import grpo
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.ppo import ppo
from heedful.training.rloo import rloo
from heedful.training.rollout import Question, RewardFunction


def settings_of(config: Config) -> PolicySection:
    """The section of config.method."""
    return {"ppo": config.ppo, "rloo": config.rloo, "grpo": config.grpo}[config.method]


def new_method(
    config: Config,
    model: LanguageModel,
    reward: RewardFunction,
    train: Sequence[Question],
    heldout: Sequence[Question],
) -> PolicyGradient:
    """config.method on a model, for the loop."""
    if config.method == "rloo":
        return rloo(model, reward, train, heldout, settings=config.rloo, seed=config.seed)
    if config.method == "grpo":
        return grpo(model, reward, train, heldout, settings=config.grpo, seed=config.seed)
    return ppo(model, reward, train, heldout, settings=config.ppo, seed=config.seed)
