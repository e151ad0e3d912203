"""What the methods that learn from files share: the adapter with its optimiser, the run through the one loop, saving."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from heedful.config import FromFilesSection, LoraSection
from heedful.models.policy import POLICY, LanguageModel
from heedful.store import new_folder
from heedful.training.loop import Method, Optimiser, Progress, copy_into, run, silent, warmup_and_decay
from heedful.training.metrics import Metrics


def add_policy(model: LanguageModel, lora: LoraSection, seed: int) -> None:
    """Gives the model a fresh adapter "policy" unless it has one."""
    if POLICY not in model.adapters:
        model.add_adapter(POLICY, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=seed)


class AdapterTraining:
    """The adapter "policy", its optimiser and its schedule. A method holds one and accumulates gradients into it."""

    def __init__(self, model: LanguageModel, *, learning_rate: float, max_grad_norm: float, num_steps: int) -> None:
        self.parameters = model.adapter_parameters(POLICY)
        self.optimiser = Optimiser({"policy": (self.parameters, learning_rate)}, max_grad_norm=max_grad_norm)
        self.num_steps = num_steps

    def update(self, step: int) -> dict[str, float]:
        """One optimiser step from the accumulated gradients."""
        self.optimiser.set_rate(warmup_and_decay(step, self.num_steps))
        rate = float(self.optimiser.adamw.param_groups[0]["lr"])
        return {"grad_norm": self.optimiser.update(), "learning_rate": rate}

    def state_dict(self) -> dict[str, Any]:
        values = [parameter.detach().clone() for parameter in self.parameters]
        return {"parameters": values, "adamw": self.optimiser.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        copy_into(self.parameters, state["parameters"])
        self.optimiser.adamw.load_state_dict(state["adamw"])


def run_from_files(
    method: Method, name: str, folder: Path, *, settings: FromFilesSection, num_steps: int, progress: Progress = silent
) -> int:
    """Trains with checkpoints in `folder` and metrics beside it; returns the number of steps."""
    return run(
        method,
        folder / "checkpoint.pt",
        lambda first: Metrics(folder.parent, name, first),
        max_steps=num_steps,
        checkpoint_every=settings.checkpoint_every,
        eval_every=settings.eval_every,
        progress=progress,
    )


def save_policy(
    model: LanguageModel,
    folder: Path,
    *,
    policy_version: str,
    temperature: float = 1.0,
    heads: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """The policy in PEFT's format, and which version of which base it is. heads: further tensors, by file name."""
    with new_folder(folder) as temporary:
        model.save_adapter(POLICY, temporary)
        for name, tensors in (heads or {}).items():
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(plain, temporary / f"{name}.safetensors")
        about = {"base": model.source, "policy_version": policy_version, "temperature": temperature}
        (temporary / "heedful.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
