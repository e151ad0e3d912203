"""Supervised fine-tuning: the policy imitates completions. docs/methods/sft.md explains each number that a step reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from heedful.config import SFTSection
from heedful.engine.responses import response_logprobs
from heedful.functional.losses.completion import completion_loss
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.reward import Answer
from heedful.training.adapter import AdapterTraining, add_policy, run_from_files
from heedful.training.loop import Outcome, Progress, Sample, batch_of_step, num_batches, silent


class SFT:
    """The method: one optimiser step on the tokens of `batch_completions` completions."""

    def __init__(
        self,
        model: LanguageModel,
        train: Sequence[Answer],
        heldout: Sequence[Answer],
        *,
        settings: SFTSection,
        num_steps: int,
        seed: int,
    ) -> None:
        add_policy(model, settings.lora, seed)
        self.model, self.train, self.heldout = model, train, heldout
        self.settings, self.seed = settings, seed
        self.adapter = AdapterTraining(
            model, learning_rate=settings.learning_rate, max_grad_norm=settings.max_grad_norm, num_steps=num_steps
        )

    def step(self, step: int) -> dict[str, float]:
        chosen = batch_of_step(step, len(self.train), self.settings.batch_completions, self.seed)
        answers = [self.train[i] for i in chosen]
        loss = self._pass(answers, learn=True)
        updated = self.adapter.update(step)
        return {"loss": loss, "num_tokens": float(_num_response_tokens(answers)), **updated}

    def _pass(self, answers: Sequence[Answer], *, learn: bool) -> float:
        """Cross-entropy a token; learn: with gradients, in parts that fit into memory and add up to one batch."""
        num_tokens = _num_response_tokens(answers)

        def part_loss(part: list[int]) -> tuple[Tensor, float]:
            read = response_logprobs(self.model, [answers[i] for i in part], adapter=POLICY)
            loss = completion_loss(*read, num_tokens=num_tokens)
            return loss, float(loss.detach())

        return sum(self.adapter.each_part(answers, part_loss, learn=learn))

    def evaluate(self, step: int) -> dict[str, float]:
        return {"heldout_loss": self._pass(self.heldout, learn=False)} if self.heldout else {}

    def samples(self, step: int) -> list[Sample]:
        return self.adapter.samples(self.heldout, self.settings.log_samples)

    def state_dict(self) -> dict[str, Any]:
        return self.adapter.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adapter.load_state_dict(state)


def _num_response_tokens(answers: Sequence[Answer]) -> int:
    return sum(sum(answer.written) for answer in answers)


def train(
    model: LanguageModel,
    train_answers: Sequence[Answer],
    heldout_answers: Sequence[Answer],
    folder: Path,
    *,
    settings: SFTSection,
    seed: int,
    progress: Progress = silent,
) -> tuple[SFT, Outcome]:
    """Trains the adapter "policy" in place with checkpoints in `folder`; returns the method and how the run ended."""
    num_steps = settings.epochs * num_batches(len(train_answers), settings.batch_completions)
    method = SFT(model, train_answers, heldout_answers, settings=settings, num_steps=num_steps, seed=seed)
    return method, run_from_files(method, "sft", folder, settings=settings, num_steps=num_steps, progress=progress)
