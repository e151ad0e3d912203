"""Training a reward model on pairs: -log sigmoid(r_j - r_k) on soft targets, all pairs of a prompt together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from heedful.config import RewardSection
from heedful.engine import scoring
from heedful.engine.batching import runs_within
from heedful.engine.lanes import lanes_of
from heedful.errors import DataError
from heedful.functional.losses.pairwise import centring_loss, pairwise_loss
from heedful.functional.losses.ties import TieModel, log_tie_parameter, raw_tie_parameter, tie_aware_loss
from heedful.models.reward import Answer, RewardModel
from heedful.records import Message, Preference
from heedful.training.loop import Outcome, Progress, Stop, batch_of_step, num_batches, run, silent
from heedful.training.metrics import Metrics
from heedful.training.optimiser import Optimiser, warmup_and_decay

# Rate of the tie parameter, one number that all pairs speak of: in a training's few dozen steps it has to travel by 1 or so.
TIE_RATE = 0.03


class Pair(NamedTuple):
    """Places of a pair's answers in its group. probability: that chosen is better. margin: by how much, 0 where unknown."""

    chosen: int
    rejected: int
    probability: float
    margin: float = 0.0

    @property
    def decided(self) -> bool:
        """Whether there is a right answer: the labelers were not split evenly."""
        return self.probability > 0.5

    @property
    def tied(self) -> bool:
        """Whether the labelers called it level: split evenly, and no consensus sets one above the other."""
        return self.probability == 0.5 and self.margin == 0


@dataclass
class Group:
    """The answers to one prompt, each once, and the pairs among them."""

    prompt_id: str
    answers: list[Answer] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)


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
        group.pairs.append(Pair(pair[0], pair[1], preference.probability, preference.margin or 0.0))
    return list(groups.values())


def is_heldout(prompt_id: str, share: float, seed: int) -> bool:
    """Whether a prompt's pairs measure instead of train; a prompt keeps its side when others come or go."""
    digest = hashlib.sha256(f"{seed}/{prompt_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


class OfPrompt(Protocol):
    """Anything that belongs to a prompt."""

    @property
    def prompt_id(self) -> str: ...


P = TypeVar("P", bound=OfPrompt)


def split_by_prompt(
    records: Sequence[P], share: float, seed: int, *, what: str = "pairs", setting: str = "reward.heldout_share"
) -> tuple[list[P], list[P]]:
    """Training and held-out records; a prompt's stay together."""
    train = [record for record in records if not is_heldout(record.prompt_id, share, seed)]
    kept = [record for record in records if is_heldout(record.prompt_id, share, seed)]
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
        self.ties: TieModel | None = settings.ties if settings.ties == "davidson" or settings.ties == "rao-kupper" else None
        fixed = settings.tie_parameter if self.ties else 0.0
        raw = raw_tie_parameter(fixed, self.ties) if self.ties and fixed else 0.0
        self.raw_tie = nn.Parameter(torch.tensor(raw, dtype=torch.float32), requires_grad=False)
        if self.ties and not fixed:
            groups, rates = groups | {"ties": {"raw_tie": self.raw_tie}}, rates | {"ties": TIE_RATE}
        self.optimiser = Optimiser({name: (groups[name], rate) for name, rate in rates.items()}, max_grad_norm=1.0)

    def _batch(self, step: int) -> list[Group]:
        return [self.train[i] for i in batch_of_step(step, len(self.train), self.settings.batch_prompts, self.seed)]

    def step(self, step: int) -> dict[str, float]:
        groups = self._batch(step)
        num_pairs = sum(len(group.pairs) for group in groups)
        self.optimiser.set_rate(warmup_and_decay(step, self.num_steps))
        costs = [self.model.cost(group.answers) for group in groups]

        def part_loss(part: list[int]) -> tuple[Tensor, tuple[float, float]]:
            return self._part_loss([groups[i] for i in part], num_pairs)

        lanes = lanes_of(self.model)
        parts = runs_within(costs, lanes.room(sum(costs)))
        part_costs = [sum(costs[i] for i in part) for part in parts]
        found = lanes.each(parts, part_loss, costs=part_costs, learning=self.optimiser.tensors)
        total, correct = (sum(column) for column in zip(*found, strict=True))
        norm = self.optimiser.update()
        num_decided = sum(pair.decided for group in groups for pair in group.pairs)
        tie = {"tie_parameter": self.tie_parameter} if self.ties else {}
        right = {"accuracy": correct / num_decided} if num_decided else {}  # ties alone have no right answer
        rate = float(self.optimiser.adamw.param_groups[0]["lr"])
        return {"loss": total, **right, "grad_norm": norm, "learning_rate": rate, **tie}

    def _part_loss(self, groups: Sequence[Group], num_pairs: int) -> tuple[Tensor, tuple[float, float]]:
        """Of some groups of a batch of num_pairs: what is learned from, and their share of the loss and their right pairs."""
        rewards_B = self.model.rewards([answer for group in groups for answer in group.answers])
        chosen, rejected, pairs = [], [], []
        first = 0
        for group in groups:
            for pair in group.pairs:
                chosen.append(first + pair.chosen)
                rejected.append(first + pair.rejected)
                pairs.append(pair)
            first += len(group.answers)
        chosen_P, rejected_P = rewards_B[chosen], rewards_B[rejected]
        loss = self._loss(chosen_P, rejected_P, pairs)
        centred = loss + self.settings.center_weight * centring_loss(chosen_P, rejected_P)
        decided_P = torch.tensor([pair.decided for pair in pairs], device=rewards_B.device)
        right_P = (chosen_P > rejected_P).float() + 0.5 * (chosen_P == rejected_P).float()
        share = len(pairs) / num_pairs
        return centred * share, (float(loss.detach()) * share, float(right_P.detach()[decided_P].sum()))

    def _loss(self, chosen_P: Tensor, rejected_P: Tensor, pairs: Sequence[Pair]) -> Tensor:
        device = chosen_P.device
        probability_P = torch.tensor([pair.probability for pair in pairs], device=device)
        margin_P = torch.tensor([self.settings.margin_weight * pair.margin for pair in pairs], device=device)
        if self.ties is None:
            return pairwise_loss(chosen_P, rejected_P, probability_P, margin_P)
        tied_P = torch.tensor([pair.tied for pair in pairs], device=device)
        log_parameter = log_tie_parameter(self.raw_tie.to(device), self.ties)
        return tie_aware_loss(chosen_P, rejected_P, probability_P, tied_P, log_parameter, self.ties, margin_P)

    @property
    def tie_parameter(self) -> float:
        """nu or theta as it stands; 1 where ties have no model."""
        return float(log_tie_parameter(self.raw_tie.detach(), self.ties).exp()) if self.ties else 1.0

    def evaluate(self, step: int) -> dict[str, float]:
        verdicts = [correct for group in self.heldout for correct, _ in judge_pairs(self.model, [group])]
        return {"heldout_accuracy": sum(verdicts) / len(verdicts)} if verdicts else {}

    def state_dict(self) -> dict[str, Any]:
        return self.optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state)


def judge_pairs(model: RewardModel, groups: Sequence[Group]) -> list[tuple[float, float]]:
    """`verdicts` on a model's rewards."""
    return verdicts(groups, scoring.rewards(model, [answer for group in groups for answer in group.answers]))


def verdicts(groups: Sequence[Group], rewards: Sequence[float]) -> list[tuple[float, float]]:
    """For each decided pair: 1, 0 or 0.5 (equal) for the rewards, and the same for "the longer text is better".

    rewards: of all answers, group after group.
    """
    found, first = [], 0
    for group in groups:
        for pair in group.pairs:
            if pair.decided:
                j, k = pair.chosen, pair.rejected
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
    log: tuple[Path, str] | None = None,
    progress: Progress = silent,
) -> tuple[PairwiseTraining, Outcome]:
    """Trains in place with checkpoints in `folder`; returns the method and how the run ended.

    log: the run directory and the stage that metrics are kept under; by default the folder's parent, as "reward".
    """
    run_folder, stage = log or (folder.parent, "reward")
    num_steps = settings.epochs * num_batches(len(train_groups), settings.batch_prompts)
    method = PairwiseTraining(model, train_groups, heldout_groups, settings=settings, num_steps=num_steps, seed=seed)
    outcome = run(
        method,
        folder / "checkpoint.pt",
        lambda first: Metrics(run_folder, stage, first),
        max_steps=num_steps,
        checkpoint_every=10,
        eval_every=settings.eval_every or max(1, num_steps // 2),
        stop=Stop("heldout_accuracy", patience=settings.patience),
        progress=progress,
    )
    return method, outcome


def drop_long(groups: Sequence[Group], model: RewardModel, max_tokens: int) -> tuple[list[Group], int]:
    """Groups whose every answer fits into max_tokens, and how many did not."""
    kept = [group for group in groups if all(model.num_tokens(answer) <= max_tokens for answer in group.answers)]
    return kept, len(groups) - len(kept)
