"""Kahneman-Tversky optimisation: completions marked good or bad move the policy, without pairs.

docs/methods/kto.md explains each number that a step reports.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from heedful.config import KTOSection
from heedful.engine.responses import response_logprobs, sum_logprobs
from heedful.errors import DataError
from heedful.functional.logprobs import sequence_logprobs
from heedful.functional.losses.kto import kto_loss, mismatched_kl
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.reward import Answer
from heedful.training.adapter import AdapterTraining, add_policy, run_from_files
from heedful.training.loop import Outcome, Progress, Sample, batch_of_step, num_batches, silent
from heedful.training.reference import reference_logprobs

MIN_BATCH = 2  # a mean KL over one mismatched completion is none
MOST_IMBALANCE = 10  # of one mark for one of the other; beyond it the user is told


@dataclass(frozen=True)
class Marked:
    """A completion and its mark. mismatched: the same prompt with a completion of another prompt."""

    prompt_id: str
    answer: Answer
    desirable: bool
    mismatched: Answer | None = None
    ref_logprob: float = 0.0
    ref_mismatched: float = 0.0


class Weights(NamedTuple):
    """What a completion of either mark weighs in the loss."""

    desirable: float
    undesirable: float


def class_weights(examples: Sequence[Marked], *, settings: KTOSection) -> Weights:
    """Weights of both marks, for a count of each that can be learned from.

    Raises DataError when one of the marks has fewer than min_per_mark completions; warns beyond ten to one.
    """
    good = sum(example.desirable for example in examples)
    bad = len(examples) - good
    if min(good, bad) < settings.min_per_mark:
        raise DataError(
            f"{good} completions are marked good and {bad} bad, and KTO needs {settings.min_per_mark} of each: with one mark "
            "alone it would raise or lower every completion. Collect votes of the other kind, or lower kto.min_per_mark"
        )
    weights = Weights(settings.desirable_weight, settings.undesirable_weight)
    ratio = good / bad
    if settings.balance:
        weights = Weights(weights.desirable * max(1.0, 1 / ratio), weights.undesirable * max(1.0, ratio))
    if max(ratio, 1 / ratio) > MOST_IMBALANCE:
        rare, key = ("good", "desirable_weight") if good < bad else ("bad", "undesirable_weight")
        told = (
            f"each of the {rare} ones weighs {max(weights):.3g} (kto.balance), so a few of them carry one side"
            if settings.balance
            else f"set kto.{key} = {max(ratio, 1 / ratio):.3g}, or kto.balance = true"
        )
        warnings.warn(f"{good} completions are marked good and {bad} bad, beyond {MOST_IMBALANCE} to 1: {told}", stacklevel=2)
    return weights


def with_mismatches(examples: Sequence[Marked], *, max_tokens: int, seed: int) -> list[Marked]:
    """Gives each prompt the completion of the next example, in an order of its own, that answers another prompt.

    What does not fit into max_tokens is cut off at its end. Raises DataError when all examples answer one prompt.
    """
    if len({example.prompt_id for example in examples}) < 2:
        raise DataError(
            "all completions answer one prompt, and KTO measures how far the policy moved on completions of *other* prompts; "
            "add votes on a second prompt"
        )
    order = list(range(len(examples)))
    random.Random(f"{seed}/mismatched").shuffle(order)
    found = list(examples)
    for place, i in enumerate(order):
        turned = (order[(place + 1 + step) % len(order)] for step in range(len(order)))
        other = next(j for j in turned if examples[j].prompt_id != examples[i].prompt_id)
        own, lent = examples[i].answer, examples[other].answer
        response = lent.response_ids[: max_tokens - len(own.prompt_ids)]
        found[i] = replace(examples[i], mismatched=Answer(own.messages, lent.text, own.prompt_ids, response))
    return found


def with_references(
    model: LanguageModel, examples: Sequence[Marked], path: Path, progress: Progress = silent, *, adapter: str | None = None
) -> list[Marked]:
    """Adds the reference's log-probs, from the file at `path` where they are there. adapter: see `reference_logprobs`."""
    answers = [example.answer for example in examples] + [_mismatched(example) for example in examples]
    sums = reference_logprobs(model, answers, path, progress, adapter=adapter)
    halves = zip(examples, sums[: len(examples)], sums[len(examples) :], strict=True)
    return [replace(example, ref_logprob=own, ref_mismatched=other) for example, own, other in halves]


def _mismatched(example: Marked) -> Answer:
    assert example.mismatched is not None, "with_mismatches comes first"
    return example.mismatched


class Measured(NamedTuple):
    """loss: mean over completions. kl: the reference point z0. rewards: implicit reward of each completion, in order."""

    loss: float
    kl: float
    rewards: list[float]


class KTO:
    """The method: one optimiser step on `batch_completions` completions. `train` carries mismatches and references."""

    def __init__(
        self,
        model: LanguageModel,
        train: Sequence[Marked],
        heldout: Sequence[Marked],
        *,
        settings: KTOSection,
        weights: Weights,
        num_steps: int,
        seed: int,
    ) -> None:
        add_policy(model, settings.lora, seed)
        self.model, self.train, self.heldout = model, train, heldout
        self.settings, self.weights, self.seed = settings, weights, seed
        self.adapter = AdapterTraining(
            model, learning_rate=settings.learning_rate, max_grad_norm=settings.max_grad_norm, num_steps=num_steps
        )

    def step(self, step: int) -> dict[str, float]:
        chosen = batch_of_step(step, len(self.train), self.settings.batch_completions, self.seed, least=MIN_BATCH)
        examples = [self.train[i] for i in chosen]
        measured = self.measure(examples, learn=True)
        found = {"loss": measured.loss, "kl_mismatched": measured.kl}
        good, bad = _by_mark(examples, measured.rewards)
        if good:
            found["reward_desirable"] = sum(good) / len(good)
        if bad:
            found["reward_undesirable"] = sum(bad) / len(bad)
        return found | self.adapter.update(step)

    def measure(self, examples: Sequence[Marked], *, learn: bool = False) -> Measured:
        """All examples; learn: with gradients, in parts that fit into memory and add up to one batch."""
        settings = self.settings
        kl = self._kl(examples)

        def part_loss(part: list[int]) -> tuple[Tensor, tuple[float, dict[int, float]]]:
            some = [examples[i] for i in part]
            policy_B = sequence_logprobs(*response_logprobs(self.model, [example.answer for example in some], adapter=POLICY))
            log_ratio_B = policy_B - torch.tensor([example.ref_logprob for example in some], device=policy_B.device)
            losses_B = kto_loss(
                log_ratio_B,
                torch.tensor([example.desirable for example in some], device=policy_B.device),
                kl,
                beta=settings.beta,
                desirable_weight=self.weights.desirable,
                undesirable_weight=self.weights.undesirable,
            )
            rewards_B = (settings.beta * log_ratio_B.detach()).tolist()
            loss = losses_B.sum() / len(examples)
            return loss, (float(loss.detach()), dict(zip(part, rewards_B, strict=True)))

        found = self.adapter.each_part([example.answer for example in examples], part_loss, learn=learn)
        rewards = {i: reward for _, some in found for i, reward in some.items()}
        return Measured(sum(loss for loss, _ in found), float(kl), [rewards[i] for i in range(len(examples))])

    def _kl(self, examples: Sequence[Marked]) -> Tensor:
        """z0 of the whole batch, so that parts agree on it."""
        policy = sum_logprobs(self.model, [_mismatched(example) for example in examples], adapter=POLICY)
        reference = [example.ref_mismatched for example in examples]
        device = self.model.device
        return mismatched_kl(torch.tensor(policy, device=device), torch.tensor(reference, device=device))

    def evaluate(self, step: int) -> dict[str, float]:
        if not self.heldout:
            return {}
        measured = self.measure(self.heldout)
        found = {"heldout_loss": measured.loss}
        good, bad = _by_mark(self.heldout, measured.rewards)
        if good and bad:
            found["heldout_accuracy"] = right_order(good, bad)
            found["heldout_margin"] = sum(good) / len(good) - sum(bad) / len(bad)
        return found

    def samples(self, step: int) -> list[Sample]:
        return self.adapter.samples([example.answer for example in self.heldout], self.settings.log_samples)

    def state_dict(self) -> dict[str, Any]:
        return self.adapter.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adapter.load_state_dict(state)


def _by_mark(examples: Sequence[Marked], rewards: Sequence[float]) -> tuple[list[float], list[float]]:
    marked = list(zip(examples, rewards, strict=True))
    return [r for example, r in marked if example.desirable], [r for example, r in marked if not example.desirable]


def right_order(good: Sequence[float], bad: Sequence[float]) -> float:
    """Share of all pairings of a good with a bad completion in which the good one has the higher reward, equal ones a half."""
    gap = torch.tensor(good)[:, None] - torch.tensor(bad)[None, :]
    return float((gap > 0).float().mean() + 0.5 * (gap == 0).float().mean())


def train(
    model: LanguageModel,
    train_examples: Sequence[Marked],
    heldout_examples: Sequence[Marked],
    folder: Path,
    *,
    settings: KTOSection,
    weights: Weights,
    seed: int,
    progress: Progress = silent,
) -> tuple[KTO, Outcome]:
    """Trains the adapter "policy" in place with checkpoints in `folder`; returns the method and how the run ended."""
    num_steps = settings.epochs * num_batches(len(train_examples), settings.batch_completions, MIN_BATCH)
    method = KTO(model, train_examples, heldout_examples, settings=settings, weights=weights, num_steps=num_steps, seed=seed)
    return method, run_from_files(method, "kto", folder, settings=settings, num_steps=num_steps, progress=progress)
