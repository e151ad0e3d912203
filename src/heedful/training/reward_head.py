"""Fitting a reward head on a frozen trunk: the same pairwise loss, which is then convex and has one best answer.

A few thousand human pairs are too few to move a trunk well (docs/methods/reward-model.md has the figures), and enough for a
linear map of what it knows. The trunk is read once; the head is found by logistic regression on differences of features.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from heedful.engine.batching import batches_by_tokens
from heedful.engine.scoring import MAX_TOKENS
from heedful.models.head import RewardHead
from heedful.models.reward import Answer
from heedful.store import write_bytes
from heedful.training.loop import Progress, silent
from heedful.training.reward import Group

STRENGTHS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # inverse L2 penalties, tried by cross-validation
NUM_FOLDS = 5


class FeatureModel(Protocol):
    """A reward model whose trunk stands still."""

    head: RewardHead

    def num_tokens(self, answer: Answer) -> int:
        """Tokens this model reads for the answer."""

    def features(self, answers: Sequence[Answer]) -> Tensor:
        """What the head's linear map reads, (B, D')."""


def fit_head(model: FeatureModel, groups: Sequence[Group], folder: Path, *, seed: int, progress: Progress = silent) -> int:
    """Fits model.head in place on the pairs of `groups`; returns how many batches of answers were read.

    Features go to folder/features as they are read, so an interrupted job goes on. The L2 penalty is the one with the best
    log-likelihood in cross-validation by prompt.
    """
    features, num_batches = read_features(model, [answer for group in groups for answer in group.answers], folder, progress)
    differences, targets, owners = [], [], []
    first = 0
    for owner, group in enumerate(groups):
        for pair in group.pairs:
            differences.append((features[first + pair.chosen] - features[first + pair.rejected]).numpy())
            targets.append(pair.probability)
            owners.append(owner)
        first += len(group.answers)
    x, p, owner_of = np.stack(differences).astype(np.float64), np.array(targets), np.array(owners)
    folds = np.random.default_rng(seed).permutation(len(groups))[owner_of] % NUM_FOLDS
    scores = [np.mean([_held_out(x, p, folds == fold, c) for fold in set(folds)]) for c in STRENGTHS]
    weights = _fit(x, p, STRENGTHS[int(np.argmax(scores))])
    with torch.no_grad():
        model.head.linear.weight.copy_(torch.from_numpy(weights).float()[None])
        # The bias changes no comparison; this one centres the rewards of the training answers at 0.
        model.head.linear.bias.copy_(-(features @ torch.from_numpy(weights).float()).mean()[None])
    return num_batches


def _fit(x: np.ndarray, p: np.ndarray, strength: float) -> np.ndarray:
    """Weights of least penalised -p log sigmoid(w x) - (1 - p) log sigmoid(-w x). x: (pairs, features)."""
    # A pair and its mirror image, each with its probability: without an intercept both say the same.
    regression = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000)
    labels = np.concatenate([np.ones(len(x)), np.zeros(len(x))])
    regression.fit(np.concatenate([x, x]), labels, sample_weight=np.concatenate([p, 1 - p + 1e-9]))
    return np.asarray(regression.coef_[0])


def _held_out(x: np.ndarray, p: np.ndarray, out: np.ndarray, strength: float) -> float:
    """Mean log-likelihood of the pairs that are out, fitted on those that are in."""
    if out.all() or not out.any():
        return float("-inf")
    logits = x[out] @ _fit(x[~out], p[~out], strength)
    return float(np.mean(-p[out] * np.logaddexp(0, -logits) - (1 - p[out]) * np.logaddexp(0, logits)))


@torch.no_grad()
def features_of(model: FeatureModel, answers: Sequence[Answer]) -> Tensor:
    """Features (answers, D'), float32, in order, of a few answers: nothing is kept."""
    found: list[Tensor] = [torch.empty(0)] * len(answers)
    for batch in batches_by_tokens([model.num_tokens(answer) for answer in answers], MAX_TOKENS):
        for i, row in zip(batch, model.features([answers[i] for i in batch]).float().cpu(), strict=True):
            found[i] = row
    return torch.stack(found)


@torch.no_grad()
def read_features(model: FeatureModel, answers: Sequence[Answer], folder: Path, progress: Progress) -> tuple[Tensor, int]:
    """Features (answers, D'), float32, in order, read in batches that are kept in folder/features."""
    batches = batches_by_tokens([model.num_tokens(answer) for answer in answers], MAX_TOKENS)
    found: list[Tensor] = [torch.empty(0)] * len(answers)
    tokens, clock = 0, time.monotonic()
    for number, batch in enumerate(batches):
        path = folder / "features" / f"{number:05}.pt"
        if path.exists():
            part = torch.load(path, weights_only=True)
        else:
            part = model.features([answers[i] for i in batch]).float().cpu()
            buffer = io.BytesIO()
            torch.save(part, buffer)
            write_bytes(path, buffer.getvalue())
            tokens += sum(model.num_tokens(answers[i]) for i in batch)
        for i, row in zip(batch, part, strict=True):
            found[i] = row
        progress(number + 1, len(batches), f"{tokens / max(1e-9, time.monotonic() - clock):.0f} tokens/s" if tokens else "")
    return torch.stack(found), len(batches)
