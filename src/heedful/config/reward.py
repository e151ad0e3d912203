"""Sections of the reward: the model that is trained, and what the policy is optimised against."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from heedful.config.section import LoraSection, Names, Section

# Decided labels of a person, or of a group together, below which no adapter is trained on them; docs/methods/personalisation.md
LEAST_LABELS = 200


class RewardTermSection(Section):
    """One of the rewards whose weighted sum PPO optimises."""

    source: str = Field(
        "trained",
        description=(
            "trained, thumbs, a folder or hub id, FOLDER#PERSON,PERSON, ensemble:F,F, python:module:function, "
            "file.py:function, http(s)://..."
        ),
    )
    name: str = Field("", description="Its name in the metrics; empty: made from the source.")
    weight: float = Field(1.0, description="Factor of this reward in the sum; negative to keep something low.")
    label: str = Field("", description="Of a classifier: the name or number of the label whose logit is the reward.")
    reads: Literal["auto", "prompt+answer", "answer"] = Field(
        "auto", description="What a classifier reads; auto: what it was trained on, else both."
    )
    min_labels: int = Field(
        LEAST_LABELS, ge=1, description="Of persons: nothing is optimised for them with fewer labels than this."
    )
    timeout_s: float = Field(30.0, gt=0, description="Of an HTTP endpoint: seconds for one whole request.")
    max_retries: int = Field(7, ge=0, description="Of an HTTP endpoint: tries after the first that failed.")
    backoff_s: float = Field(1.0, ge=0, description="Of an HTTP endpoint: wait before the first retry; doubles, 60 at most.")
    batch_rows: int = Field(64, ge=1, description="Of an HTTP endpoint: answers a request.")
    token_env: str = Field("", description="Of an HTTP endpoint: environment variable that holds its bearer token.")

    @property
    def identity(self) -> dict[str, Any]:
        """What of it makes the reward, not how patiently it is asked: what is done stays when that changes."""
        asking = {"min_labels", "timeout_s", "max_retries", "backoff_s", "batch_rows", "token_env"}
        return self.model_dump(exclude=asking)


class LabelledSection(Section):
    """Texts that people put into classes; with files, the reward model is a classifier of them and learns from no pairs."""

    files: Names = Field((), description="JSONL or CSV files, packed with gzip or not.")
    text_field: str = Field("text", description="Field or column of the text.")
    label_field: str = Field("label", description="Field or column of its label.")
    prompt_field: str = Field("", description="Field or column of what the text answers; empty: the text stands alone.")
    wanted: str = Field("", description="Label whose logit is the reward; all others make the second class.")


class RewardSection(Section):
    """The reward model, trained on pairs or on labelled texts, and what PPO makes of it."""

    preferences: Names = Field(
        (),
        description="Train on these pairs instead of sampling and labelling (own records, TRL columns, HH transcripts).",
    )
    model: str = Field("", description="Empty: an adapter and a head on the policy's base. Else an encoder's source.")
    trunk: Literal["adapter", "frozen"] = Field(
        "adapter", description="adapter: train one under the head; frozen: fit the head alone, best for few human pairs."
    )
    pooling: Literal["last", "mean", "last+mean"] = Field(
        "last+mean", description="What the head reads: the last token, the mean of the last 40 (an encoder: of all), or both."
    )
    lora: LoraSection = LoraSection()
    labelled: LabelledSection = LabelledSection()
    learning_rate: float = Field(3e-4, gt=0, description="Peak rate of the adapter; for a whole encoder 5e-5 is better.")
    head_learning_rate: float = Field(1e-3, gt=0, description="Peak rate of the scalar head.")
    epochs: int = Field(2, ge=1, description="Passes over the training pairs.")
    batch_prompts: int = Field(8, ge=1, description="Prompts an optimiser step; all pairs of a prompt stay together.")
    heldout_share: float = Field(0.2, gt=0, lt=1, description="Share of prompts kept to measure accuracy on.")
    eval_every: int = Field(0, ge=0, description="Steps between looks at held-out pairs; 0: halfway and at the end.")
    patience: int = Field(
        0,
        ge=0,
        description="Stop after this many looks in a row without a better held-out accuracy; back to the best then. 0: never.",
    )
    max_pairs: int = Field(0, ge=0, description="Use at most this many pairs; 0 uses all.")
    max_tokens: int = Field(512, ge=16, description="Longer prompt-and-completion sequences are left out, with a count.")
    center_weight: float = Field(0.01, ge=0, description="Weight of (r_j + r_k)^2 a pair, which centres rewards at 0.")
    margin_weight: float = Field(0.0, ge=0, description="The rewards of a pair shall differ by this times its margin.")
    ties: Literal["drop", "soft", "davidson", "rao-kupper"] = Field(
        "drop", description="Tied pairs: none; probability 0.5; or a class of their own in one of two models of ties."
    )
    tie_parameter: float = Field(
        0.0, ge=0, description="nu of Davidson (above 0) or theta of Rao and Kupper (above 1), held fixed; 0: learnt."
    )
    ensemble: int = Field(1, ge=1, le=16, description="Reward models to train, each from a seed of its own.")
    aggregate: Literal["mean", "mean-sd", "mean-variance", "worst"] = Field(
        "mean-sd", description="What an ensemble says: mean, less disagreement_coef times the spread, or the least reward."
    )
    disagreement_coef: float = Field(0.5, ge=0, description="c in mean - c sd of an ensemble.")
    terms: Annotated[tuple[RewardTermSection, ...], Strict(False)] = Field(
        (), description="PPO's reward as a weighted sum, one [[reward.terms]] each; empty: the trained model alone."
    )
