"""Sections of the methods that learn from files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from heedful.config.section import LoraSection, Section


class FromFilesSection(Section):
    """What the methods that learn from files have in common."""

    lora: LoraSection = LoraSection()
    heldout_share: float = Field(0.1, gt=0, lt=1, description="Share of prompts kept to measure on.")
    max_tokens: int = Field(512, ge=16, description="Longer prompt-and-completion sequences are left out, with a count.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    patience: int = Field(
        0,
        ge=0,
        description="Stop after this many evaluations in a row without a lower held-out loss; back to the best then. 0: never.",
    )
    eval_every: int = Field(50, ge=1, description="Steps between evaluations on held-out prompts; the end has one.")
    checkpoint_every: int = Field(10, ge=1, description="Steps between checkpoints.")
    log_samples: int = Field(2, ge=0, description="Held-out prompts whose completions each evaluation keeps in samples.jsonl.")


class SFTSection(FromFilesSection):
    """Supervised fine-tuning on completions worth imitating."""

    learning_rate: float = Field(2e-4, gt=0, description="Peak rate of the adapter, ten times that of full fine-tuning.")
    epochs: int = Field(3, ge=1, description="Passes over the completions.")
    batch_completions: int = Field(16, ge=1, description="Completions an optimiser step.")


class DPOSection(FromFilesSection):
    """Direct preference optimisation and its kin, on pairs."""

    loss: Literal["sigmoid", "robust", "ipo", "hinge", "simpo", "orpo"] = Field(
        "sigmoid", description="The objective; simpo and orpo need no reference."
    )
    beta: float = Field(0.1, gt=0, description="Scale of the log-ratio in sigmoid, robust, ipo, hinge; larger stays nearer.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Share of labels taken to be wrong: sigmoid gets cautious, robust corrects for it."
    )

    @field_validator("label_smoothing")
    @classmethod
    def _has_effect(cls, value: float, info: ValidationInfo) -> float:
        loss = info.data.get("loss", "sigmoid")
        if value and loss not in ("sigmoid", "robust"):
            raise ValueError(f"label_smoothing belongs to loss = 'sigmoid' or 'robust', and the loss is {loss!r}")
        return value

    soft_labels: bool = Field(True, description="Use each pair's probability; off: every pair counts as certain.")
    simpo_beta: float = Field(2.0, gt=0, description="Scale of the mean log-prob in simpo.")
    simpo_gamma: float = Field(1.0, ge=0, description="Lead in simpo's logit that chosen must have.")
    orpo_weight: float = Field(0.1, ge=0, description="Weight of the odds ratio beside the cross-entropy in orpo.")
    learning_rate: float = Field(5e-5, gt=0, description="Peak rate of the adapter, ten times that of full fine-tuning.")
    epochs: int = Field(2, ge=1, description="Passes over the pairs.")
    batch_prompts: int = Field(8, ge=1, description="Prompts an optimiser step; all pairs of a prompt stay together.")


class KTOSection(FromFilesSection):
    """Kahneman-Tversky optimisation, on completions marked good or bad."""

    beta: float = Field(0.1, gt=0, description="Scale of the log-ratio; larger stays nearer to the reference.")
    desirable_weight: float = Field(1.0, gt=0, description="Weight of a completion marked good.")
    undesirable_weight: float = Field(1.0, gt=0, description="Weight of a completion marked bad.")
    balance: bool = Field(True, description="Raise the rarer mark's weight until both marks pull alike.")
    min_per_mark: int = Field(8, ge=1, description="Refuse to train with fewer completions of either mark.")
    learning_rate: float = Field(5e-5, gt=0, description="Peak rate of the adapter, ten times that of full fine-tuning.")
    epochs: int = Field(2, ge=1, description="Passes over the completions.")
    batch_completions: int = Field(16, ge=2, description="Completions an optimiser step; the KL is a mean over them.")

    @field_validator("batch_completions", mode="before")
    @classmethod
    def _not_one(cls, value: object) -> object:
        if value == 1 and value is not True:
            raise ValueError(
                "KTO measures a mean KL over the batch's mismatched completions, and one completion has no mean; take 8 or more"
            )
        return value


class ILQLSection(Section):
    """Implicit Q-learning: heads on the frozen model, learned offline from judged completions."""

    rank: int = Field(16, ge=1, description="Rank of the advantage over the unembedding.")
    width: int = Field(256, ge=1, description="Hidden units of the Q and the value head.")
    epochs: int = Field(20, ge=1, description="Passes over the completions; the trunk is read only once.")
    batch_episodes: int = Field(16, ge=1, description="Completions an optimiser step.")
    eval_every: int = Field(20, ge=1, description="Steps between looks at held-out pairs.")
    checkpoint_every: int = Field(20, ge=1, description="Steps between checkpoints.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak rate of the heads.")
    warmup_steps: int = Field(10, ge=0, description="Steps over which the learning rate rises.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    gamma: float = Field(0.99, gt=0, le=1, description="Discount a token.")
    expectile: float = Field(0.7, gt=0, lt=1, description="Tau: V is this expectile of Q over the tokens of the data.")
    cql_coef: float = Field(0.01, ge=0, description="Weight of the conservative term.")
    cql_tokens: int = Field(
        128, ge=0, description="Tokens a step, drawn at random, on which the conservative term is computed; 0: all."
    )
    polyak: float = Field(0.05, gt=0, le=1, description="Share of the online Q head that its slow copy takes a step.")
    beta: float = Field(4.0, ge=0, description="In decoding, how much an advantage of 1 adds to a token's log-probability.")
    top_k: int = Field(
        40, ge=0, description="In decoding, only so many of the model's likeliest tokens are considered; 0: all."
    )
    heldout_share: float = Field(0.2, gt=0, lt=1, description="Share of prompts kept to measure accuracy on.")
    max_pairs: int = Field(0, ge=0, description="Use at most this many pairs; 0 uses all.")
    max_tokens: int = Field(512, ge=16, description="Longer prompt-and-completion sequences are left out, with a count.")
