"""Sections of the methods that sample and learn from rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from heedful.config.section import LoraSection, Section


class PolicySection(Section):
    """What all methods that sample and learn from rewards share."""

    lora: LoraSection = LoraSection()
    max_steps: int = Field(20_000, ge=0, description="Optimisation steps (one batch of rollouts each) at most.")
    reward_threshold: float | None = Field(
        None, description="Stop once the mean reward on held-out prompts reaches this; checked every eval_every steps."
    )
    patience: int = Field(
        0, ge=0, description="Stop after this many evaluations in a row without a record, and go back to the best; 0: never."
    )
    max_kl: float = Field(
        0.0, ge=0, description="Stop once a step's sequence KL from the reference is above this, in nats; 0: never."
    )
    eval_every: int = Field(10, ge=1, description="Steps between evaluations on held-out prompts.")
    checkpoint_every: int = Field(5, ge=1, description="Steps between checkpoints.")
    log_samples: int = Field(4, ge=0, description="Held-out prompts whose completions each evaluation keeps in samples.jsonl.")
    episodes: int = Field(32, ge=2, description="Rollouts a step.")
    samples_per_prompt: int = Field(2, ge=1, description="Rollouts of one prompt within a step.")
    max_new_tokens: int = Field(40, ge=1, description="Longest rollout, end-of-text token included.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits, in sampling and in training alike.")
    epochs: int = Field(2, ge=1, description="Passes over a batch of rollouts.")
    num_minibatches: int = Field(4, ge=1, description="Optimiser steps a pass.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak rate of the adapter.")
    warmup_steps: int = Field(2, ge=0, description="Steps over which the learning rate rises.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    clip: float = Field(0.2, gt=0, lt=1, description="Trust region: the ratio is clipped to 1 - clip ... 1 + clip.")
    clip_high: float = Field(0.0, ge=0, description="Upper side of the trust region, such as 0.28; 0: the same as clip.")
    dual_clip: float = Field(
        0.0,
        ge=0,
        description="Where an advantage is negative, a token weighs at most this much (above 1, such as 3); 0: no limit.",
    )

    @field_validator("dual_clip")
    @classmethod
    def _above_one(cls, value: float) -> float:
        if 0 < value <= 1:
            raise ValueError("dual_clip is above 1: at 1 or below, bad answers would teach nothing; 0 turns it off")
        return value

    sampler_ratio_cap: float = Field(
        0.0, ge=0, description="Weigh tokens by trainer / sampler probability up to this cap (such as 2); 0: do not weigh."
    )
    entropy_coef: float = Field(0.001, ge=0, description="c2, weight of the entropy bonus.")
    kl: Literal["exact", "k1", "k3"] = Field("exact", description="KL in the penalty: over the vocabulary, or an estimate.")
    kl_coef: float = Field(0.1, ge=0, description="Penalty on each token's KL from the reference (at the start).")
    kl_target: float = Field(
        6.0, ge=0, description="Sequence KL in nats that the adaptive coefficient steers to; 0 keeps the coefficient fixed."
    )
    kl_horizon: float = Field(200, gt=0, description="Episodes over which the adaptive coefficient moves.")
    target_kl_update: float = Field(
        0.1, ge=0, description="End a step's passes once the policy moved this far (nats a token) from the sampler; 0: never."
    )
    normalise_rewards: bool = Field(True, description="Rewards to mean 0, sd 1 by their running moments.")
    reward_clip: float = Field(5.0, gt=0, description="Rewards, normalised or not, are clipped to plus or minus this.")
    missing_eos_penalty: float = Field(1.0, ge=0, description="Taken from the reward of a rollout that was cut off.")
    length_penalty: float = Field(
        0.0, ge=0, description="Taken from the reward of a longest rollout; of a shorter one, its share."
    )


class MonitorSection(Section):
    """Watching for reward hacking while a policy learns."""

    on: bool = Field(True, description="Whether to look on at all.")
    gold: str = Field(
        "", description="A reward that the policy does not learn from: a source as in reward.terms, or 'rubric'; empty: none."
    )
    window: int = Field(
        3, ge=1, description="Stop when over so many evaluations the reward rose and gold fell, both beyond chance."
    )
    roll_back: bool = Field(True, description="After such a stop go back to the evaluation with the best gold.")
    raise_kl: float = Field(1.0, ge=1, description="Factor on the KL coefficient after an evaluation with a sign; 1: none.")
    queue: int = Field(10, ge=0, description="Answers rewarded far above what gold says that are put into review/ for people.")

    @field_validator("gold")
    @classmethod
    def _another(cls, value: str) -> str:
        if value == "trained":
            raise ValueError("gold is a reward that the policy does not learn from, and 'trained' is the one it does")
        return value


class PPOSection(PolicySection):
    """Proximal policy optimisation."""

    value_learning_rate: float = Field(1e-3, gt=0, description="Peak rate of the value head.")
    critic_warmup_steps: int = Field(1, ge=0, description="First steps in which only the value head learns.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount.")
    lam: float = Field(0.95, ge=0, le=1, description="Lambda of generalised advantage estimation.")
    value_clip: float = Field(0.2, gt=0, description="The new value may leave the old one by this much.")
    value_coef: float = Field(0.5, ge=0, description="c1, weight of the value loss.")
    whiten_advantages: bool = Field(True, description="Advantages to mean 0, sd 1 over the batch's response tokens.")


class RLOOSection(PolicySection):
    """REINFORCE with a baseline from the other answers, without a critic."""

    variant: Literal["rloo", "reinforce++", "reinforce++-baseline"] = Field(
        "rloo", description="Leave-one-out; rewards to go whitened over the batch; the same after subtracting the group's mean."
    )
    samples_per_prompt: int = Field(
        4, ge=2, description="Rollouts of one prompt within a step; they are each other's baseline."
    )
    epochs: int = Field(1, ge=1, description="Passes over a batch of rollouts; one is REINFORCE.")


class GRPOSection(PolicySection):
    """Group-relative policy optimisation."""

    variant: Literal["grpo", "dr_grpo", "dapo"] = Field(
        "grpo", description="As published; without dividing by deviation and length; with the mean over tokens."
    )
    samples_per_prompt: int = Field(8, ge=2, description="Rollouts of one prompt within a step: the group.")
    epochs: int = Field(1, ge=1, description="Passes over a batch of rollouts.")
    kl_coef: float = Field(0.04, ge=0, description="Weight of the KL term in the loss; 0 leaves it out, as DAPO does.")
    kl_target: float = Field(0.0, ge=0, description="Sequence KL in nats that kl_coef is steered to; 0 keeps it fixed.")
