"""A frozen base of which each member of a team holds a part of every layer (FSDP2): for models that fit into no one's memory.

A layer is put together from all members' parts while it is read and dropped behind it, so members must make the same passes at
the same time. They agree on each before it (`Team.turn`), and whoever has nothing to read makes an empty one. A backward is a
pass like another: it reads its tokens a second time, with gradient, and goes back at once; so no member holds a graph that
another must wait for, and activations are alive of one pass at most. Embedding, head, norms outside the layers, adapters and
their heads are whole on each; gradients of what learns are summed as ever (engine/lanes.py), and checkpoints are whole.
"""

# B batch, S prompt + response tokens, D hidden size

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError, ModelError
from heedful.models.heap import give_back, keep_large_apart
from heedful.team import InParts, Team

PASS = "a pass through the base"


class Shards:
    """How a model that is held in parts is read by this member."""

    def __init__(self, team: Team, model: InParts) -> None:
        self.team = team
        self.number = team.take_in(model)

    def read(self, own: Callable[[], Tensor], kind: int, learning: Sequence[Tensor]) -> Tensor:
        """What `own` gives (B, S, D), differentiable in `learning`, the adapter that it reads with. kind: the number of such a
        pass; one more is that of its backward.
        """
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in learning):
            found: Tensor = _ReadAgain.apply(own, self._pass, kind, *learning)  # type: ignore[no-untyped-call]
            return found
        with torch.no_grad(), self._pass(kind):
            return own()

    def read_nothing(self, own: Callable[[], Tensor], learning: Sequence[Tensor], *, backward: bool) -> None:
        """An empty pass, made when the team has agreed on it."""
        with self.losing():
            if not backward:
                with torch.no_grad():
                    own()
                return
            asked = [tensor.requires_grad for tensor in learning]
            _backward(own, learning, None)
            for tensor, before in zip(learning, asked, strict=True):
                tensor.requires_grad_(before)

    def whole(self, weight: Any) -> Any:
        """A weight put together from its parts, by all members at once; another one as it is."""
        with self.losing():
            return weight.full_tensor() if is_part(weight) else weight

    @contextmanager
    def _pass(self, kind: int) -> Iterator[None]:
        self.team.turn(self.number, kind)
        with self.losing():
            yield

    @contextmanager
    def losing(self) -> Iterator[None]:
        """An error in here leaves the others in the middle of what they cannot end."""
        try:
            yield
        except HeedfulError:
            raise
        except Exception as error:
            raise self.team.lost(PASS, error) from error


class _ReadAgain(torch.autograd.Function):
    """Forward keeps nothing; backward reads again with gradient. Both are passes that the team agrees on."""

    @staticmethod
    def forward(ctx: Any, own: Callable[[], Tensor], one_pass: Any, kind: int, *learning: Tensor) -> Tensor:
        ctx.own, ctx.one_pass, ctx.kind, ctx.learning = own, one_pass, kind, learning
        with torch.no_grad(), one_pass(kind):
            return own()

    @staticmethod
    def backward(ctx: Any, grad_BSD: Tensor) -> tuple[Tensor | None, ...]:
        with ctx.one_pass(ctx.kind + 1):
            return (None, None, None, *_backward(ctx.own, ctx.learning, grad_BSD))


def _backward(own: Callable[[], Tensor], learning: Sequence[Tensor], grad_BSD: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients of the whole adapter, so that all members' passes go back through the same layers; grad_BSD: None for zero.

    On a thread of its own: within a backward FSDP2 takes every forward for recomputed activations and keeps its layers whole.
    """
    found: tuple[Tensor | None, ...] = _aside().submit(copy_context().run, _read_and_go_back, own, learning, grad_BSD).result()
    give_back()
    return found


@cache
def _aside() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "backward")


def _read_and_go_back(
    own: Callable[[], Tensor], learning: Sequence[Tensor], grad_BSD: Tensor | None
) -> tuple[Tensor | None, ...]:
    for tensor in learning:
        tensor.requires_grad_(True)
    with torch.enable_grad():
        hidden_BSD = own()
    grad_BSD = torch.zeros_like(hidden_BSD) if grad_BSD is None else grad_BSD
    return torch.autograd.grad(hidden_BSD, list(learning), grad_BSD, allow_unused=True)


def require_shardable(config: Mapping[str, Any], source: str) -> None:
    """Raises ModelError for a model, by its config.json, that cannot be held in parts."""
    why = None
    if config.get("is_encoder_decoder"):
        why = "is an encoder-decoder model, whose prompts and answers are read apart"
    elif config.get("quantization_config"):
        why = "is stored in packed numbers (quantization_config), which cannot be cut"
    if why:
        raise ModelError(
            f"scale.fsdp = true: {source} {why}; set scale.fsdp = false, so that each worker holds all of it, or model.source "
            "to a causal language model in plain numbers"
        )


def shard_layers(causal: Any, source: str, *, dtype: torch.dtype, device: torch.device) -> None:
    """Cuts each layer's weights into as many parts as the team has members and drops all but this one's, layer by layer; the
    rest becomes plain tensors of its own. Whoever loaded the weights mapped from their file never holds more than its parts,
    the rest and a layer.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    names = set(getattr(causal, "_no_split_modules", None) or ())
    layers = [module for module in causal.base_model.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(
            f"scale.fsdp = true: transformers does not say which modules of {source} are its layers; set scale.fsdp = false, "
            "or choose another model"
        )
    keep_large_apart()  # a layer's weights come and go between activations that stay, and would leave a hole each time
    mesh = DeviceMesh.from_group(dist.group.WORLD, device.type)  # type: ignore[arg-type]
    for layer in layers:
        _move(layer, dtype, device)
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    _move(causal, dtype, device)
    # A root of all layers, with no weights of its own: it has the next layer's parts sent while one is read.
    fully_shard(causal.base_model, mesh=mesh, ignored_params={weight for weight in causal.parameters() if not is_part(weight)})


def is_part(weight: Tensor) -> bool:
    """Whether a weight is held in parts."""
    return hasattr(weight, "full_tensor")


def _move(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Copies: a single tensor that is mapped from a file would hold the whole file."""
    copies: dict[int, Tensor] = {}  # one for weights that are tied
    for weight in module.parameters():
        if not is_part(weight):
            place = weight.data_ptr()
            if place not in copies:
                copies[place] = weight.data.to(device, dtype, copy=True)
            weight.data = copies[place]
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)
