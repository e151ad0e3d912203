"""What turns gradients into weights: AdamW over named groups, clipping, and how rates rise and fall."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from heedful.errors import TrainingError

REMEDY = "Lower the learning rate or use model.dtype = 'float32'; with another setting the stage begins anew"


class Optimiser:
    """AdamW over named groups of named tensors, each group with its own peak rate, and clipping to a joint norm.

    What is trained is float32, whatever the frozen weights beside it are: an update of a hundredth of a percent is lost in
    bfloat16's eight bits.
    """

    def __init__(self, groups: Mapping[str, tuple[Mapping[str, nn.Parameter], float]], *, max_grad_norm: float) -> None:
        self.peaks = {name: rate for name, (_, rate) in groups.items()}
        self.named = {f"{group}: {name}": tensor for group, (tensors, _) in groups.items() for name, tensor in tensors.items()}
        self.max_grad_norm = max_grad_norm
        assert all(tensor.dtype.itemsize >= 4 for tensor in self.named.values()), "trained weights are float32"
        for tensor in self.named.values():
            tensor.requires_grad_(True)
        listed = [{"params": list(tensors.values()), "lr": rate, "name": name} for name, (tensors, rate) in groups.items()]
        self.adamw = torch.optim.AdamW(listed, weight_decay=0.0)

    @property
    def tensors(self) -> list[nn.Parameter]:
        """What is trained, in a stable order."""
        return list(self.named.values())

    def set_rate(self, factor: float, **others: float) -> None:
        """Rates become peak * factor; others: factors of groups by name, 0 for one that stands still."""
        for group in self.adamw.param_groups:
            group["lr"] = self.peaks[group["name"]] * others.get(group["name"], factor)

    def update(self) -> float:
        """One step from the accumulated gradients, which it clears. Returns their norm before clipping.

        Raises TrainingError naming the tensor when a gradient is NaN or infinite; the weights are left as they are.
        """
        tensors = self.tensors
        norm_ = nn.utils.get_total_norm([tensor.grad for tensor in tensors if tensor.grad is not None])
        norm = float(norm_)
        if not math.isfinite(norm):
            broken = [
                name for name, tensor in self.named.items() if tensor.grad is not None and not tensor.grad.isfinite().all()
            ]
            where = (
                f"{broken[0]} (and {len(broken) - 1} more)" if len(broken) > 1 else "".join(broken) or "all tensors together"
            )
            raise TrainingError(f"the gradient of {where} is not finite, and this step has changed no weight. {REMEDY}")
        nn.utils.clip_grads_with_norm_(tensors, self.max_grad_norm, norm_)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """The trained tensors and AdamW's moments."""
        return {"tensors": [tensor.detach().clone() for tensor in self.named.values()], "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict` in place."""
        copy_into(list(self.named.values()), state["tensors"])
        self.adamw.load_state_dict(state["adamw"])


def copy_into(parameters: Sequence[nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    """Overwrites parameters in place, so that optimisers keep pointing at them."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def warmup(step: int, warmup_steps: int) -> float:
    """Factor of the peak rate: rises linearly to 1 over warmup_steps, from the first step on above 0."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def warmup_and_decay(step: int, num_steps: int) -> float:
    """Factor of the peak rate: rises over the first tenth of the steps, falls linearly towards a tenth.

    The last examples seen should not outweigh the first.
    """
    return warmup(step, max(1, num_steps // 10)) * (1 - 0.9 * step / max(1, num_steps))
