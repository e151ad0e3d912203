"""Training a reward model on pairs: -log sigmoid(r_j - r_k) on soft targets, all pairs of a prompt together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from heedful.config import RewardSection
from heedful.engine import scoring
from heedful.engine.batching import runs_within
from heedful.errors import DataError
from heedful.functional.losses.pairwise import centring_loss, pairwise_loss
from heedful.models.reward import Answer, RewardModel
from heedful.records import Message, Preference
from heedful.training.loop import Optimiser, Progress, batch_of_step, copy_into, run, silent, warmup_and_decay
from heedful.training.metrics import Metrics

MICROBATCH_TOKENS = 1024  # activations of this many tokens are alive at once; larger is no faster on a processor


@dataclass
class Group:
    """The answers to one prompt, each once, and the pairs among them as (chosen, rejected, probability)."""

    prompt_id: str
    answers: list[Answer] = field(default_factory=list)
    pairs: list[tuple[int, int, float]] = field(default_factory=list)


# Makes the Answer that a reward model reads from a prompt's id, its conversation and a text.
Encode = Callable[[str, tuple[Message, ...], str], Answer]


def group_pairs(preferences: Sequence[Preference], encode: Encode) -> list[Group]:
    """Pairs gathered by prompt, in order of first appearance; equal texts of a prompt become one answer."""
    groups: dict[str, Group] = {}
    places: dict[tuple[str, str], int] = {}
    for preference in preferences:
        group = groups.setdefault(preference.prompt_id, Group(preference.prompt_id))
        pair = []
        for text in (preference.chosen, preference.rejected):
            key = (preference.prompt_id, text)
            if key not in places:
                places[key] = len(group.answers)
                group.answers.append(encode(preference.prompt_id, preference.prompt, text))
            pair.append(places[key])
        group.pairs.append((pair[0], pair[1], preference.probability))
    return list(groups.values())


class OfPrompt(Protocol):
    """Anything that belongs to a prompt."""

    @property
    def prompt_id(self) -> str: ...


P = TypeVar("P", bound=OfPrompt)


def split_by_prompt(
    records: Sequence[P], share: float, seed: int, *, what: str = "pairs", setting: str = "reward.heldout_share"
) -> tuple[list[P], list[P]]:
    """Training and held-out records; a prompt's stay together, and a prompt keeps its side when others come or go."""

    def heldout(prompt_id: str) -> bool:
        digest = hashlib.sha256(f"{seed}/{prompt_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    train = [record for record in records if not heldout(record.prompt_id)]
    kept = [record for record in records if heldout(record.prompt_id)]
    if not train or not kept:
        num_prompts = len({record.prompt_id for record in records})
        raise DataError(
            f"{len(records)} {what} of {num_prompts} prompts cannot be split into training and held-out {what}; "
            f"label more prompts or change {setting}"
        )
    return train, kept


class PairwiseTraining:
    """The method: one optimiser step on the pairs of `batch_prompts` prompts."""

    def __init__(
        self,
        model: RewardModel,
        train: Sequence[Group],
        heldout: Sequence[Group],
        *,
        settings: RewardSection,
        num_steps: int,
        seed: int,
    ) -> None:
        self.model = model
        self.train = train
        self.heldout = heldout
        self.settings = settings
        self.num_steps = num_steps
        self.seed = seed
        groups = model.parameter_groups()
        rates = {"body": settings.learning_rate, "head": settings.head_learning_rate}
        self.parameters = [parameter for name in rates for parameter in groups[name]]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.optimiser = Optimiser({name: (groups[name], rate) for name, rate in rates.items()}, max_grad_norm=1.0)

    def _batch(self, step: int) -> list[Group]:
        return [self.train[i] for i in batch_of_step(step, len(self.train), self.settings.batch_prompts, self.seed)]

    def step(self, step: int) -> dict[str, float]:
        groups = self._batch(step)
        num_pairs = sum(len(group.pairs) for group in groups)
        self.optimiser.set_rate(warmup_and_decay(step, self.num_steps))
        total, correct = 0.0, 0.0
        costs = [max(self.model.num_tokens(a) for a in group.answers) * len(group.answers) for group in groups]
        for batch in runs_within(costs, MICROBATCH_TOKENS):
            answers = [answer for i in batch for answer in groups[i].answers]
            rewards_B = self.model.rewards(answers)
            chosen, rejected, probability = [], [], []
            first = 0
            for i in batch:
                for j, k, p in groups[i].pairs:
                    chosen.append(first + j)
                    rejected.append(first + k)
                    probability.append(p)
                first += len(groups[i].answers)
            chosen_P, rejected_P = rewards_B[chosen], rewards_B[rejected]
            target_P = torch.tensor(probability, device=rewards_B.device)
            loss = pairwise_loss(chosen_P, rejected_P, target_P)
            centred = loss + self.settings.center_weight * centring_loss(chosen_P, rejected_P)
            (centred * len(chosen) / num_pairs).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach()) * len(chosen) / num_pairs
            correct += float((chosen_P > rejected_P).sum()) + 0.5 * float((chosen_P == rejected_P).sum())
        norm = self.optimiser.update()
        return {"loss": total, "accuracy": correct / num_pairs, "grad_norm": norm}

    def evaluate(self, step: int) -> dict[str, float]:
        verdicts = [correct for group in self.heldout for correct, _ in judge_pairs(self.model, [group])]
        return {"heldout_accuracy": sum(verdicts) / len(verdicts)} if verdicts else {}

    def state_dict(self) -> dict[str, Any]:
        values = [parameter.detach().clone() for parameter in self.parameters]
        return {"parameters": values, "adamw": self.optimiser.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        copy_into(self.parameters, state["parameters"])
        self.optimiser.adamw.load_state_dict(state["adamw"])


def judge_pairs(model: RewardModel, groups: Sequence[Group]) -> list[tuple[float, float]]:
    """For each decided pair: 1, 0 or 0.5 (equal) for the model, and the same for "the longer text is better"."""
    answers = [answer for group in groups for answer in group.answers]
    rewards = scoring.rewards(model, answers)
    found, first = [], 0
    for group in groups:
        for j, k, probability in group.pairs:
            if probability > 0.5:  # a tie has no right answer
                lengths = (len(group.answers[j].text), len(group.answers[k].text))
                found.append((beats(rewards[first + j], rewards[first + k]), beats(*lengths)))
        first += len(group.answers)
    return found


def beats(a: float, b: float) -> float:
    """1 when a is above b, 0 below, 0.5 when they are equal."""
    return 1.0 if a > b else 0.0 if a < b else 0.5


def train(
    model: RewardModel,
    train_groups: Sequence[Group],
    heldout_groups: Sequence[Group],
    folder: Path,
    *,
    settings: RewardSection,
    seed: int,
    progress: Progress = silent,
) -> int:
    """Trains in place with checkpoints in `folder`; returns the number of steps."""
    num_steps = settings.epochs * -(-len(train_groups) // settings.batch_prompts)
    method = PairwiseTraining(model, train_groups, heldout_groups, settings=settings, num_steps=num_steps, seed=seed)
    return run(
        method,
        folder / "checkpoint.pt",
        lambda first: Metrics(folder.parent, "reward", first),
        max_steps=num_steps,
        checkpoint_every=10,
        eval_every=max(1, num_steps // 2),
        progress=progress,
    )


def drop_long(groups: Sequence[Group], model: RewardModel, max_tokens: int) -> tuple[list[Group], int]:
    """Groups whose every answer fits into max_tokens, and how many did not."""
    kept = [group for group in groups if all(model.num_tokens(answer) <= max_tokens for answer in group.answers)]
    return kept, len(groups) - len(kept)
