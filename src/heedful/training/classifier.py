"""Training a reward model as a two-class classifier of labelled texts; the logit of the wanted class is the reward."""

# B texts, L labels

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from heedful.config import RewardSection
from heedful.engine.batching import batches_by_tokens
from heedful.engine.lanes import lanes_of
from heedful.engine.scoring import MAX_TOKENS
from heedful.errors import DataError
from heedful.functional.losses.classes import class_loss
from heedful.models.head import RewardHead
from heedful.models.reward import Answer, RewardModel
from heedful.training.loop import Outcome, Progress, Stop, batch_of_step, num_batches, run, silent
from heedful.training.metrics import Metrics
from heedful.training.optimiser import Optimiser, warmup_and_decay
from heedful.training.reward_head import NUM_FOLDS, FeatureModel, read_features

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse L2 penalties of a frozen trunk's head, tried by cross-validation


@dataclass(frozen=True)
class Example:
    """A text as the model reads it, and the number of its label."""

    answer: Answer
    label: int


class ClassifierModel(RewardModel, FeatureModel, Protocol):
    """A reward model whose head has a logit for each label."""

    head: RewardHead

    def logits(self, answers: Sequence[Answer]) -> Tensor:
        """(B, L), float32, differentiable in `parameter_groups`."""


def split_by_text(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and held-out examples; equal texts stay together, and a text keeps its side when others come or go."""

    def heldout(example: Example) -> bool:
        digest = hashlib.sha256(f"{seed}/{example.answer.text}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    train = [example for example in examples if not heldout(example)]
    kept = [example for example in examples if heldout(example)]
    for name, part in (("training", train), ("held-out", kept)):
        if len({example.label for example in part}) < 2:
            raise DataError(
                f"{len(examples)} labelled texts leave {len(part)} {name} texts, not of both classes; label more texts or "
                "change reward.heldout_share"
            )
    return train, kept


class ClassifierTraining:
    """The method: one optimiser step on `batch_prompts` texts."""

    def __init__(
        self,
        model: ClassifierModel,
        train: Sequence[Example],
        heldout: Sequence[Example],
        *,
        settings: RewardSection,
        num_steps: int,
        seed: int,
    ) -> None:
        self.model, self.train, self.heldout = model, train, heldout
        self.settings, self.num_steps, self.seed = settings, num_steps, seed
        groups = model.parameter_groups()
        rates = {"body": settings.learning_rate, "head": settings.head_learning_rate}
        self.optimiser = Optimiser({name: (groups[name], rate) for name, rate in rates.items()}, max_grad_norm=1.0)

    def step(self, step: int) -> dict[str, float]:
        chosen = batch_of_step(step, len(self.train), self.settings.batch_prompts, self.seed)
        batch = [self.train[i] for i in chosen]
        self.optimiser.set_rate(warmup_and_decay(step, self.num_steps))
        tokens = [self.model.num_tokens(example.answer) for example in batch]

        def part_loss(part: list[int]) -> tuple[Tensor, tuple[float, float]]:
            logits_BL = self.model.logits([batch[i].answer for i in part])
            labels_B = torch.tensor([batch[i].label for i in part], device=logits_BL.device)
            loss = class_loss(logits_BL, labels_B) * len(part) / len(batch)
            return loss, (float(loss.detach()), float((logits_BL.argmax(dim=1) == labels_B).sum()))

        lanes = lanes_of(self.model)
        parts = batches_by_tokens(tokens, lanes.room(sum(tokens)))
        costs = [max(tokens[i] for i in part) * len(part) for part in parts]
        found = lanes.each(parts, part_loss, costs=costs, learning=self.optimiser.tensors)
        total, correct = (sum(column) for column in zip(*found, strict=True))
        norm = self.optimiser.update()
        rate = float(self.optimiser.adamw.param_groups[0]["lr"])
        return {"loss": total, "accuracy": correct / len(batch), "grad_norm": norm, "learning_rate": rate}

    def evaluate(self, step: int) -> dict[str, float]:
        labels = [example.label for example in self.heldout]
        found = logits_of(self.model, [example.answer for example in self.heldout]).argmax(dim=1).tolist()
        return {"heldout_accuracy": sum(a == b for a, b in zip(found, labels, strict=True)) / len(labels)}

    def state_dict(self) -> dict[str, Any]:
        return self.optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state)


@torch.no_grad()
def logits_of(model: ClassifierModel, answers: Sequence[Answer]) -> Tensor:
    """Logits (answers, L) in order, on the processor, without gradient."""
    found: list[Tensor] = [torch.empty(0)] * len(answers)
    for batch in batches_by_tokens([model.num_tokens(answer) for answer in answers], MAX_TOKENS):
        for i, row in zip(batch, model.logits([answers[i] for i in batch]).float().cpu(), strict=True):
            found[i] = row
    return torch.stack(found)


def train(
    model: ClassifierModel,
    examples: Sequence[Example],
    heldout: Sequence[Example],
    folder: Path,
    *,
    settings: RewardSection,
    seed: int,
    log: tuple[Path, str],
    progress: Progress = silent,
) -> Outcome:
    """Trains in place with checkpoints in `folder`. log: run directory and stage of metrics."""
    num_steps = settings.epochs * num_batches(len(examples), settings.batch_prompts)
    method = ClassifierTraining(model, examples, heldout, settings=settings, num_steps=num_steps, seed=seed)
    return run(
        method,
        folder / "checkpoint.pt",
        lambda first: Metrics(*log, first),
        max_steps=num_steps,
        checkpoint_every=10,
        eval_every=settings.eval_every or max(1, num_steps // 2),
        stop=Stop("heldout_accuracy", patience=settings.patience),
        progress=progress,
    )


def fit_head(
    model: ClassifierModel, examples: Sequence[Example], folder: Path, *, seed: int, progress: Progress = silent
) -> int:
    """Fits model.head in place on a frozen trunk by logistic regression, L2 by cross-validation over texts.

    The two logits are plus and minus half the log-odds, so softmax gives the regression's probability. Returns how many batches
    were read; their features are kept in folder/features, so an interrupted job goes on.
    """
    features, num_batches = read_features(model, [example.answer for example in examples], folder, progress)
    x, wanted = features.numpy().astype(np.float64), np.array([example.label == model.head.index for example in examples])
    folds = np.random.default_rng(seed).permutation(len(x)) % NUM_FOLDS
    scores = [np.mean([_held_out(x, wanted, folds == fold, c) for fold in range(NUM_FOLDS)]) for c in STRENGTHS]
    fitted = LogisticRegression(C=STRENGTHS[int(np.argmax(scores))], max_iter=1000).fit(x, wanted)
    half = torch.from_numpy(np.concatenate([fitted.coef_[0], fitted.intercept_]) / 2).float()
    sign = torch.tensor([1.0 if number == model.head.index else -1.0 for number in range(len(model.head.labels))])
    with torch.no_grad():
        model.head.linear.weight.copy_(sign[:, None] * half[None, :-1])
        model.head.linear.bias.copy_(sign * half[-1])
    return num_batches


def _held_out(x: np.ndarray, wanted: np.ndarray, out: np.ndarray, strength: float) -> float:
    """Mean log-likelihood of the texts that are out, fitted on those that are in; -inf where a part lacks a class."""
    if not out.any() or len(set(wanted[~out])) < 2:
        return float("-inf")
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(x[~out], wanted[~out])
    chances = fitted.predict_log_proba(x[out])
    return float(np.mean(chances[np.arange(len(chances)), wanted[out].astype(int)]))
