"""States below the lowest adapted layer: they depend on tokens alone, so that one pass serves every adapter and epoch."""

# N tokens laid end to end, D hidden size

from __future__ import annotations

import torch
from torch import Tensor

from heedful.models.trunk.packed import Packed

KEPT_BYTES = 1 << 30  # what a batch of rollouts may keep; what comes after it is computed again

Key = tuple[int, ...]


class Below:
    """States (tokens, D) that a layer reads, by the tokens of a prompt and of what follows it."""

    def __init__(self) -> None:
        self.layer = 0
        self.kept: dict[tuple[Key, Key | None], Tensor] = {}
        self.num_bytes = 0

    def find(self, packed: Packed, layer: int) -> Tensor | None:
        """The states (N, D) of a batch before the given layer; None unless all of them are kept."""
        if layer != self.layer:
            return None
        found = [self.kept.get(key) for key, _ in _pieces(packed)]
        states = [piece for piece in found if piece is not None]
        return torch.cat(states) if states and len(states) == len(found) else None

    def keep(self, packed: Packed, layer: int, x_ND: Tensor) -> None:
        """Keeps the states of a batch, as far as there is room; those of another layer are dropped."""
        if layer != self.layer:
            self.kept, self.num_bytes, self.layer = {}, 0, layer
        pieces = _pieces(packed)
        parts = torch.split(x_ND.detach(), [length for _, length in pieces])
        for (key, _), part in zip(pieces, parts, strict=True):
            size = part.numel() * part.element_size()
            if key not in self.kept and self.num_bytes + size <= KEPT_BYTES:
                self.kept[key] = part.clone()  # of its own: a view would hold the batch
                self.num_bytes += size


def _pieces(packed: Packed) -> list[tuple[tuple[Key, Key | None], int]]:
    """Each prompt and each response of a batch as its tokens lie: what it is known by, and how many tokens it has."""
    found: dict[int, tuple[tuple[Key, Key | None], int]] = {}  # by the place of its first token
    for (start, length), first, count in zip(packed.prompts, packed.first, packed.lengths, strict=True):
        prompt = tuple(packed.ids[start : start + length])
        if length:
            found[start] = (prompt, None), length
        if count:
            found[first] = (prompt, tuple(packed.ids[first : first + count])), count
    return [found[place] for place in sorted(found)]
