"""heedful.toml: one frozen model a stage. Every default and its reason stands here and nowhere else."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator
from pydantic.fields import FieldInfo

from heedful.errors import ConfigError

# Keys that name files, and keys that name a model: a folder, or else an alias or a hub id.
LISTS = ("prompts.files", "reward.preferences")
FILES = (*LISTS, "label.judgements")
MODELS = ("model.source", "reward.model")
ALIASES = ("smollm2-135m", "minilm-22m")  # as in models/sources.py, which lies above this file

Names = Annotated[tuple[str, ...], Strict(False)]  # TOML's arrays arrive as lists


class Section(BaseModel):
    # strict: neither true nor "3" is taken for a number.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelSection(Section):
    """The instruct model that is aligned."""

    source: str = Field("smollm2-135m", description="A folder, a hub id, or the alias smollm2-135m.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="Type of the frozen weights; auto takes bfloat16 where the processor computes in it."
    )


class PromptsSection(Section):
    """What the model is asked."""

    files: Names = Field(
        (),
        description="Prompt or preference files, hf://datasets/..., bundled:dialogues; empty: bundled:prompts.",
    )
    num_train: int = Field(64, ge=1, description="Prompts to sample, label and train on.")
    num_heldout: int = Field(60, ge=1, description="Prompts kept for evaluation; never trained on.")
    max_prompt_tokens: int = Field(384, ge=8, description="Longer prompts are left out, with a count.")


class SampleSection(Section):
    """Completions that labelers will rank."""

    num_completions: int = Field(4, ge=2, le=9, description="Completions a prompt.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits.")
    top_p: float = Field(1.0, gt=0, le=1, description="Smallest set of tokens with this probability is kept.")
    max_new_tokens: int = Field(40, ge=1, description="Longest completion, end-of-text token included.")
    batch_rows: int = Field(32, ge=1, description="Completions decoded side by side.")


class LabelSection(Section):
    """Who ranks the completions."""

    judgements: str = Field("", description="A judgements file by people; empty asks the simulated labelers.")
    criterion: str = Field("helpful, honest, harmless", description="What labelers judge by.")
    num_labelers: int = Field(4, ge=1, description="Simulated labelers.")
    num_careless: int = Field(1, ge=0, description="Simulated labelers who rank without reading.")
    noise: float = Field(0.04, ge=0, description="Standard deviation of a careful simulated labeler's score (0 to 1).")


class LoraSection(Section):
    """Low-rank adapters; only these and the heads are trained."""

    rank: int = Field(16, ge=1, description="Rank of the update.")
    alpha: float = Field(32, gt=0, description="The update is scaled by alpha / rank.")
    layers: int = Field(10, ge=0, description="Adapt only this many uppermost layers, which halves the backward pass; 0: all.")
    targets: Names = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Linear layers that get an adapter.",
    )


class RewardTermSection(Section):
    """One of the rewards whose weighted sum PPO optimises."""

    source: str = Field(
        "trained",
        description="trained, a folder or hub id, ensemble:F,F, python:module:function, file.py:function, http(s)://...",
    )
    name: str = Field("", description="Its name in the metrics; empty: made from the source.")
    weight: float = Field(1.0, description="Factor of this reward in the sum; negative to keep something low.")
    label: str = Field("", description="Of a classifier: the name or number of the label whose logit is the reward.")
    reads: Literal["auto", "prompt+answer", "answer"] = Field(
        "auto", description="What a classifier reads; auto: what it was trained on, else both."
    )
    timeout_s: float = Field(30.0, gt=0, description="Of an HTTP endpoint: seconds for one whole request.")
    max_retries: int = Field(5, ge=0, description="Of an HTTP endpoint: tries after the first that failed.")
    backoff_s: float = Field(1.0, ge=0, description="Of an HTTP endpoint: wait before the first retry; doubles, 60 at most.")
    batch_rows: int = Field(64, ge=1, description="Of an HTTP endpoint: answers a request.")
    token_env: str = Field("", description="Of an HTTP endpoint: environment variable that holds its bearer token.")


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


class PPOSection(PolicySection):
    """Proximal policy optimisation."""

    value_learning_rate: float = Field(1e-3, gt=0, description="Peak rate of the value head.")
    critic_warmup_steps: int = Field(1, ge=0, description="First steps in which only the value head learns.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount.")
    lam: float = Field(0.95, ge=0, le=1, description="Lambda of generalised advantage estimation.")
    value_clip: float = Field(0.2, gt=0, description="The new value may leave the old one by this much.")
    value_coef: float = Field(0.5, ge=0, description="c1, weight of the value loss.")
    whiten_advantages: bool = Field(True, description="Advantages to mean 0, sd 1 over the batch's response tokens.")


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


class EvaluateSection(Section):
    """Before and after, on the same held-out prompts and seeds."""

    max_new_tokens: int = Field(40, ge=1, description="Longest completion, end-of-text token included.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits.")
    num_completions: int = Field(2, ge=1, description="Completions a prompt; intervals cluster them by prompt.")
    num_resamples: int = Field(10_000, ge=100, description="Bootstrap resamples.")


class Config(Section):
    """A whole run."""

    seed: int = Field(0, ge=0, description="Every random choice derives from it.")
    method: Literal["ppo", "rloo", "grpo"] = Field(
        "ppo", description="What optimises the policy; its section below holds its settings."
    )
    model: ModelSection = ModelSection()
    prompts: PromptsSection = PromptsSection()
    sample: SampleSection = SampleSection()
    label: LabelSection = LabelSection()
    reward: RewardSection = RewardSection()
    ppo: PPOSection = PPOSection()
    sft: SFTSection = SFTSection()
    dpo: DPOSection = DPOSection()
    kto: KTOSection = KTOSection()
    rloo: RLOOSection = RLOOSection()
    grpo: GRPOSection = GRPOSection()
    ilql: ILQLSection = ILQLSection()
    evaluate: EvaluateSection = EvaluateSection()


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration in a file. overrides: "section.key=value" with the value in TOML's notation.

    Relative paths in the file are seen from its folder, those in overrides from the working directory; both become absolute.
    Raises ConfigError naming the file and the key; an unknown key comes with the nearest known one.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); 'heedful init DIR' writes one to start from") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return parse(_from_folder("", fields, path.parent), str(path), overrides)


def parse(fields: dict[str, Any], where: str, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration in nested dictionaries; `where` begins the error messages. Relative paths: as overrides in `load`."""
    fields = _from_folder("", fields, Path())
    for override in overrides:
        _apply(fields, override)
    try:
        return Config.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        location = tuple(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: {_unknown_key(location)}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {'.'.join(location)} = {first['input']!r}: {message}") from None


def for_reward_training(
    overrides: tuple[str, ...],
    *,
    pairs: bool,
    labelled: Sequence[str] | None,
    wanted: str,
    ensemble: int | None,
    seed: int | None,
) -> Config:
    """The configuration of `heedful reward train`: the overrides, and over them what has an option of its own."""
    given: list[str] = [f"reward.labelled.files={json.dumps(list(labelled))}"] if labelled else []
    given += [f"reward.labelled.wanted={json.dumps(wanted)}"] if wanted else []
    given += [f"reward.ensemble={ensemble}"] if ensemble is not None else []
    given += [f"seed={seed}"] if seed is not None else []
    config = parse({}, "--set", (*overrides, *given))
    if pairs == bool(config.reward.labelled.files):
        raise ConfigError("a reward model learns either from --preferences or from --labelled: name files of one of the two")
    return config


def with_reward(config: Config, source: str | None, label: str, reads: str) -> Config:
    """The configuration with one source of rewards in place of its terms; as it is when no source is given.

    Raises ConfigError when neither names a reward that exists already.
    """
    terms = config.reward.terms
    if source is not None:
        one = {"source": source, "label": label, "reads": reads}
        terms = parse({"reward": {"terms": [one]}}, "--reward-model").reward.terms
    if not terms or any(term.source == "trained" for term in terms):
        raise ConfigError("name a reward that exists: --reward-model, or [[reward.terms]] without source = 'trained'")
    return config.model_copy(update={"reward": config.reward.model_copy(update={"terms": terms})})


def _apply(fields: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected section.key=value, as in --set ppo.max_steps=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string: --set model.source=smollm2-135m
    value = _from_folder(key.strip(), value, Path())
    *sections, last = key.strip().split(".")
    here = fields
    for section in sections:
        here = here.setdefault(section, {})
        if not isinstance(here, dict):
            raise ConfigError(f"--set {override}: '{section}' is a value, not a section")
    here[last] = value


def _from_folder(key: str, value: Any, folder: Path) -> Any:
    """The value of a key, sections included, with the relative paths in it joined to the folder. Wrong types stay."""
    if isinstance(value, dict):
        return {name: _from_folder(f"{key}.{name}" if key else name, inner, folder) for name, inner in value.items()}
    if key in LISTS and isinstance(value, (list, tuple)):
        return [_path(item, folder) if isinstance(item, str) else item for item in value]
    if key in FILES and key not in LISTS and isinstance(value, str):
        return _path(value, folder)
    if key in MODELS and isinstance(value, str) and value not in ALIASES:
        path = _path(value, folder)
        return path if value.startswith(("./", "../", "~/")) or os.path.isdir(path) else value  # else it may be a hub id
    return value


def _path(name: str, folder: Path) -> str:
    if not name or name.startswith(("hf://", "bundled:")):
        return name
    return str(folder.resolve() / (os.path.expanduser(name) if name.startswith("~/") else name))


def _unknown_key(location: tuple[str, ...]) -> str:
    known = known_keys()
    key = ".".join(location)
    same_name = [name for name in known if name.rsplit(".", 1)[-1] == location[-1]]
    # Of equally near ones the first in the file's order, for methods share names.
    near = max(same_name or known, key=lambda name: difflib.SequenceMatcher(None, name, key).ratio())
    return f"unknown key '{key}'; the nearest known key is '{near}'"


def known_keys() -> list[str]:
    """Every key as section.key, sections included."""
    return [key for key, _ in _walk(Config)]


def _walk(section: type[Section], prefix: str = "") -> list[tuple[str, FieldInfo]]:
    found: list[tuple[str, FieldInfo]] = []
    for name, field in section.model_fields.items():
        found.append((prefix + name, field))
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                found += _walk(kind, f"{prefix}{name}.")
    return found


def to_toml(config: Section, *, explain: bool = False, prefix: str = "") -> str:
    """The configuration as TOML that `load` reads back to an equal Config. explain: descriptions as comments."""
    values, tables = [], []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Section):
            heading = f"{prefix}{name}"
            doc = f"# {(type(value).__doc__ or '').strip()}\n" if explain else ""
            tables.append(f"{doc}[{heading}]\n{to_toml(value, explain=explain, prefix=heading + '.')}")
            continue
        if explain and field.description:
            values.append(f"# {field.description}")
        if isinstance(value, tuple) and value and isinstance(value[0], Section):
            tables += [f"[[{prefix}{name}]]\n{to_toml(item, prefix=f'{prefix}{name}.')}" for item in value]
            continue
        values.append(f"# {name} =" if value is None else f"{name} = {_literal(value)}")
    return "\n".join(["\n".join(values) + "\n" if values else "", *tables])


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON strings are TOML basic strings, save for the delete character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
