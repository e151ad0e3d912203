"""Direct preference optimisation and its kin: pairs move the policy itself, no reward model between.

docs/methods/dpo.md explains each number that a step reports.
"""

# A answers of a part, P pairs of it

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from heedful.config import DPOSection
from heedful.engine.batching import runs_within
from heedful.engine.lanes import lanes_for
from heedful.engine.responses import response_logprobs
from heedful.functional.logprobs import sequence_logprobs
from heedful.functional.losses.completion import completion_loss
from heedful.functional.losses.preference import (
    hinge_loss,
    ipo_loss,
    log_ratio_margin,
    odds_ratio_loss,
    robust_loss,
    sigmoid_loss,
    simpo_loss,
)
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.trunk.packed import shared_tokens
from heedful.training.adapter import AdapterTraining, add_policy, run_from_files
from heedful.training.loop import Outcome, Progress, Sample, batch_of_step, num_batches, silent
from heedful.training.reference import reference_logprobs
from heedful.training.reward import Group, beats

REFERENCE_FREE = ("simpo", "orpo")
PER_TOKEN = ("ipo", "simpo", "orpo")  # these read the mean log-prob a token, the others the sum

# log ref(y | x) of each answer of a prompt, by the prompt's id
References = Mapping[str, Sequence[float]]


class Pairs(NamedTuple):
    """Log-probs of completions, sums or means over tokens as the objective reads them; without a reference its are 0."""

    chosen_P: Tensor
    rejected_P: Tensor
    ref_chosen_P: Tensor
    ref_rejected_P: Tensor
    probability_P: Tensor


class Verdict(NamedTuple):
    """One pair as the policy sees it. margin: implicit reward of chosen less that of rejected."""

    prompt_id: str
    margin: float
    probability: float
    longest: float  # 1, 0 or 0.5: whether "the longer text is better" is right


class Measured(NamedTuple):
    """Means over pairs (chosen_nll: over the chosen completions' tokens), and each pair's verdict."""

    loss: float
    reward_chosen: float
    reward_rejected: float
    chosen_nll: float
    verdicts: list[Verdict]

    @property
    def margin(self) -> float:
        return self.reward_chosen - self.reward_rejected

    def accuracy(self) -> float | None:
        """Share of decided pairs whose margin is above 0, a margin of 0 counting a half; None without decided pairs."""
        found = [beats(verdict.margin, 0.0) for verdict in self.verdicts if verdict.probability > 0.5]
        return sum(found) / len(found) if found else None


class DPO:
    """The method: one optimiser step on all pairs of `batch_prompts` prompts."""

    def __init__(
        self,
        model: LanguageModel,
        train: Sequence[Group],
        heldout: Sequence[Group],
        references: References,
        *,
        settings: DPOSection,
        num_steps: int,
        seed: int,
    ) -> None:
        add_policy(model, settings.lora, seed)
        self.model, self.train, self.heldout, self.references = model, train, heldout, references
        self.settings, self.seed = settings, seed
        self.adapter = AdapterTraining(
            model, learning_rate=settings.learning_rate, max_grad_norm=settings.max_grad_norm, num_steps=num_steps
        )

    def step(self, step: int) -> dict[str, float]:
        chosen = batch_of_step(step, len(self.train), self.settings.batch_prompts, self.seed)
        measured = self.measure([self.train[i] for i in chosen], learn=True)
        updated = self.adapter.update(step)
        accuracy = measured.accuracy()
        return {
            "loss": measured.loss,
            **({} if accuracy is None else {"accuracy": accuracy}),
            "margin": measured.margin,
            "reward_chosen": measured.reward_chosen,
            "reward_rejected": measured.reward_rejected,
            "chosen_nll": measured.chosen_nll,
            **updated,
        }

    def measure(self, groups: Sequence[Group], *, learn: bool = False) -> Measured:
        """All pairs of the groups; learn: with gradients, in parts that fit into memory and add up to one batch."""
        num_pairs = sum(len(group.pairs) for group in groups)
        num_chosen = sum(sum(group.answers[j].written) for group in groups for j, *_ in group.pairs)
        costs = [shared_tokens([(answer.prompt_ids, answer.response_ids) for answer in group.answers]) for group in groups]

        def part_loss(part: list[int]) -> tuple[Tensor, Measured]:
            some = [groups[i] for i in part]
            pairs, nll = self._read(some, num_chosen)
            loss = self._losses(pairs).sum() / num_pairs
            if self.settings.loss == "orpo":
                loss = loss + nll
            return loss, self._measured(some, pairs, float(loss.detach()), float(nll.detach()), num_pairs)

        lanes = lanes_for(self.model, POLICY)
        parts = runs_within(costs, lanes.room(sum(costs)))
        found = lanes.each(
            parts,
            part_loss,
            costs=[sum(costs[i] for i in part) for part in parts],
            learning=self.adapter.optimiser.tensors if learn else (),
        )
        return Measured(
            sum(part.loss for part in found),
            sum(part.reward_chosen for part in found),
            sum(part.reward_rejected for part in found),
            sum(part.chosen_nll for part in found),
            [verdict for part in found for verdict in part.verdicts],
        )

    def _measured(self, groups: Sequence[Group], pairs: Pairs, loss: float, nll: float, num_pairs: int) -> Measured:
        """Of a part, as its share of the batch."""
        chosen_P = self._scale * (pairs.chosen_P.detach() - pairs.ref_chosen_P)
        rejected_P = self._scale * (pairs.rejected_P.detach() - pairs.ref_rejected_P)
        verdicts: list[Verdict] = []
        judged = [(group, pair) for group in groups for pair in group.pairs]
        for (group, (j, k, p, _)), margin in zip(judged, (chosen_P - rejected_P).tolist(), strict=True):
            lengths = len(group.answers[j].text), len(group.answers[k].text)
            verdicts.append(Verdict(group.prompt_id, margin, p, beats(*lengths)))
        return Measured(loss, float(chosen_P.sum()) / num_pairs, float(rejected_P.sum()) / num_pairs, nll, verdicts)

    def _read(self, groups: Sequence[Group], num_chosen: int) -> tuple[Pairs, Tensor]:
        """One forward pass over a part: its pairs, and the chosen ones' cross-entropy as a share of `num_chosen` tokens."""
        answers = [answer for group in groups for answer in group.answers]
        read = response_logprobs(self.model, answers, adapter=POLICY)
        per_token = self.settings.loss in PER_TOKEN
        policy_A = sequence_logprobs(*read, per_token=per_token)
        ref_A = torch.zeros_like(policy_A)
        if self.settings.loss not in REFERENCE_FREE:
            sums = [value for group in groups for value in self.references[group.prompt_id]]
            lengths = [max(1, len(answer.response_ids)) if per_token else 1 for answer in answers]
            ref_A = ref_A + torch.tensor([s / n for s, n in zip(sums, lengths, strict=True)], device=ref_A.device)
        chosen, rejected, probability = [], [], []
        first = 0
        for group in groups:
            for j, k, p, _ in group.pairs:
                chosen.append(first + j)
                rejected.append(first + k)
                probability.append(p if self.settings.soft_labels or p == 0.5 else 1.0)
            first += len(group.answers)
        nll = completion_loss(read.logprobs_BT[chosen], read.mask_BT[chosen], num_tokens=max(1, num_chosen))
        target_P = torch.tensor(probability, device=policy_A.device)
        return Pairs(policy_A[chosen], policy_A[rejected], ref_A[chosen], ref_A[rejected], target_P), nll

    def _losses(self, pairs: Pairs) -> Tensor:
        """The objective of each pair, (P,)."""
        settings, probability_P = self.settings, pairs.probability_P
        if settings.loss == "simpo":
            beta, gamma = settings.simpo_beta, settings.simpo_gamma
            return simpo_loss(pairs.chosen_P, pairs.rejected_P, probability_P, beta=beta, gamma=gamma)
        if settings.loss == "orpo":
            return settings.orpo_weight * odds_ratio_loss(pairs.chosen_P, pairs.rejected_P, probability_P)
        margin_P = log_ratio_margin(pairs.chosen_P, pairs.rejected_P, pairs.ref_chosen_P, pairs.ref_rejected_P)
        if settings.loss == "ipo":
            return ipo_loss(margin_P, probability_P, beta=settings.beta)
        if settings.loss == "hinge":
            return hinge_loss(margin_P, probability_P, beta=settings.beta)
        smoothed = robust_loss if settings.loss == "robust" else sigmoid_loss
        return smoothed(margin_P, probability_P, beta=settings.beta, label_smoothing=settings.label_smoothing)

    @property
    def _scale(self) -> float:
        """From log-prob to implicit reward."""
        return {"simpo": self.settings.simpo_beta, "orpo": 1.0}.get(self.settings.loss, self.settings.beta)

    def evaluate(self, step: int) -> dict[str, float]:
        if not self.heldout:
            return {}
        measured = self.measure(self.heldout)
        accuracy = measured.accuracy()
        found = {"heldout_loss": measured.loss, "heldout_margin": measured.margin}
        return found if accuracy is None else found | {"heldout_accuracy": accuracy}

    def samples(self, step: int) -> list[Sample]:
        return self.adapter.samples([answer for group in self.heldout for answer in group.answers], self.settings.log_samples)

    def state_dict(self) -> dict[str, Any]:
        return self.adapter.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adapter.load_state_dict(state)


def read_references(model: LanguageModel, groups: Sequence[Group], path: Path, progress: Progress = silent) -> References:
    """The reference's log-probs of all answers, from the file at `path` where they are there already."""
    sums = iter(reference_logprobs(model, [answer for group in groups for answer in group.answers], path, progress))
    return {group.prompt_id: [next(sums) for _ in group.answers] for group in groups}


def train(
    model: LanguageModel,
    train_groups: Sequence[Group],
    heldout_groups: Sequence[Group],
    references: References,
    folder: Path,
    *,
    settings: DPOSection,
    seed: int,
    progress: Progress = silent,
) -> tuple[DPO, Outcome]:
    """Trains the adapter "policy" in place with checkpoints in `folder`; returns the method and how the run ended."""
    num_steps = settings.epochs * num_batches(len(train_groups), settings.batch_prompts)
    method = DPO(model, train_groups, heldout_groups, references, settings=settings, num_steps=num_steps, seed=seed)
    return method, run_from_files(method, "dpo", folder, settings=settings, num_steps=num_steps, progress=progress)
