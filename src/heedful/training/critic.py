"""The critic of PPO: a value head on the policy's trunk, and when and how it learns."""

# B batch of rollouts, T response tokens

from __future__ import annotations

from torch import Tensor

from heedful.functional.losses.ppo import value_loss
from heedful.models.policy import LanguageModel, ValueHead


class Critic:
    """A value head with its peak learning rate and its part of the loss.

    warmup_steps: first steps in which it learns alone. clip: how far a value may leave its old one. coef: c1.
    """

    def __init__(self, model: LanguageModel, *, learning_rate: float, warmup_steps: int, clip: float, coef: float) -> None:
        self.head = ValueHead(model.hidden_size).to(model.device)
        self.learning_rate, self.warmup_steps, self.clip, self.coef = learning_rate, warmup_steps, clip, coef

    def loss(self, values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, num_tokens: int) -> Tensor:
        """The clipped value loss, not yet times c1. Gradients reach values only."""
        return value_loss(values_BT, old_values_BT, returns_BT, mask_BT, clip=self.clip, num_tokens=num_tokens)
