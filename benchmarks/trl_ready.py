"""TRL's trainers, made to take token ids as they are and to tell which ones they read."""

from __future__ import annotations

from typing import Any

import torch
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer
from turn import Clock, unpadded


class _Ready:
    """Takes the token ids as they are."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class ReadyDPOTrainer(_Ready, DPOTrainer):  # type: ignore[misc]
    pass


class ReadyKTOTrainer(_Ready, KTOTrainer):  # type: ignore[misc]
    pass


class ReadyRewardTrainer(_Ready, RewardTrainer):  # type: ignore[misc]
    pass


class ReadySFTTrainer(SFTTrainer):  # type: ignore[misc]
    """Has an option of its own to take the token ids as they are."""


class ReadyGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """A prompt is the number of one in `ready`, whose token ids are taken as they are; `heard` is told them."""

    def _tokenize_prompts(self, prompts: list[str]) -> Any:
        found = [self.ready[int(number)] for number in prompts]
        self.heard([self.ready[int(number)] for number in dict.fromkeys(prompts)])
        return found, None, {}


def base_as_reference(trainer: Any) -> None:
    """Lets the reference be the base alone, as it is when TRL makes the adapter itself.

    Given a model that has an adapter, TRL keeps a copy of it as the reference; heedful's reference is the base.
    """
    if "ref" in trainer.model.peft_config:
        trainer.model.delete_adapter("ref")


def watched(kind: type, clock: Clock) -> type:
    """The trainer class with an ear on the token ids of each batch."""

    class Watched(kind):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
            for prefix in ("", "KL_"):
                if f"{prefix}input_ids" in inputs:
                    mask = inputs.get(f"{prefix}attention_mask")
                    ids = inputs[f"{prefix}input_ids"]
                    clock.read(unpadded(ids, torch.ones_like(ids) if mask is None else mask))
            return super().compute_loss(model, inputs, *arguments, **options)

        def _precompute_ref_logps(self, *arguments: Any, **options: Any) -> Any:
            """Counts the pass over the references of all examples, less the warm-up's part."""
            base_as_reference(self)
            clock.begin()
            found = super()._precompute_ref_logps(*arguments, **options)
            clock.extra_s += clock.lap() * clock.job["steps"] / (clock.job["warmup"] + clock.job["steps"])
            return found

    return Watched
