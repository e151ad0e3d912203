"""Decoding with a cache that is laid out once: rows enter with a prompt, grow by a token a step and leave."""

# A rows in flight, S places of a row, J key-value heads, R query heads a key-value head, E head size, D hidden size

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from heedful.models.trunk.attention import Layout
from heedful.models.trunk.llama import PackedTrunk

PREFILL_TOKENS = 2048  # tokens of prompts computed side by side
BLOCK = 32  # places that the cache grows by: all of them are computed with, masked, so that keys lie as matrices do


class Entry(NamedTuple):
    """A prompt, and how many rows begin with it."""

    prompt: Sequence[int]
    copies: int


class Decoder(Protocol):
    """What sampling needs of a model: rows in flight, in an order that `leave` changes."""

    joins: bool  # whether rows may enter while others are in flight

    def enter(self, entries: Sequence[Entry]) -> Tensor:
        """Adds rows behind those in flight; hidden states (rows added, D) from which their first tokens are drawn."""

    def step(self, tokens_A: Tensor) -> Tensor:
        """Appends a token to each row; hidden states (A, D) from which the next ones are drawn."""

    def leave(self, places: Sequence[int]) -> list[int]:
        """Drops rows. Returns for each row that stays, in the new order, the place that it had."""


def _blocks(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


class PackedDecoder:
    """Over the packed trunk. max_rows: the most rows in flight. max_length: the most tokens of one.

    Memory is taken once. Within it the keys of a layer lie as matrices of as many places as are needed, in whole blocks.

    The attention is two plain batched products over the whole cache: on processors several times faster than the fused
    kernel at one query a row (docs/decisions/0005-the-trunk.md).
    """

    joins = True

    def __init__(self, trunk: PackedTrunk, adapter: str | None, *, max_rows: int, max_length: int) -> None:
        self.trunk, self.adapter = trunk, adapter
        self.max_rows = max_rows
        weight, width = trunk.layers[0].qkv.weight, trunk.num_kv_heads * trunk.head_size
        size = max_rows * _blocks(max_length) * width
        self.memory = [[weight.new_empty(size) for _ in trunk.layers] for _ in range(2)]
        nothing = weight.new_empty(max_rows, trunk.num_kv_heads, 0, trunk.head_size)
        self.keys, self.values = ([nothing] * len(trunk.layers) for _ in range(2))
        self.lengths: list[int] = []

    def _make_room(self, length: int) -> None:
        """Places for rows of that many tokens."""
        before, after = self.keys[0].shape[2], _blocks(length)
        if after <= before:
            return
        shape = (self.max_rows, self.trunk.num_kv_heads, after, self.trunk.head_size)
        count = math.prod(shape)
        for tensors, memory in zip((self.keys, self.values), self.memory, strict=True):
            for i, whole in enumerate(memory):
                old = tensors[i].clone()
                # Zero and not whatever was there: what is behind a row's end is masked, and a NaN would come through the mask.
                tensors[i] = whole[:count].zero_().view(shape)
                tensors[i][:, :, :before] = old

    def enter(self, entries: Sequence[Entry]) -> Tensor:
        found: list[Tensor] = []
        run: list[Entry] = []
        filled = 0
        for entry in entries:
            if run and filled + len(entry.prompt) > PREFILL_TOKENS:
                found.append(self._enter(run))
                run, filled = [], 0
            run.append(entry)
            filled += len(entry.prompt)
        return torch.cat([*found, self._enter(run)])

    def _enter(self, entries: Sequence[Entry]) -> Tensor:
        trunk, device = self.trunk, self.keys[0].device
        lengths = [len(entry.prompt) for entry in entries]
        assert all(lengths), "the first token is drawn from the state of a prompt's last one"
        rows: list[int] = []
        places: list[int] = []
        sources: list[int] = []
        last: list[int] = []
        first = 0
        row = len(self.lengths)
        for entry, length in zip(entries, lengths, strict=True):
            for _ in range(entry.copies):
                rows += [row] * length
                places += range(length)
                sources += range(first, first + length)
                self.lengths.append(length)
                last.append(first + length - 1)
                row += 1
            first += length
        self._make_room(max(lengths) + 1)
        rows_M, places_M, sources_M, last_A = (torch.tensor(part, device=device) for part in (rows, places, sources, last))

        def keep(i: int, k_NJE: Tensor, v_NJE: Tensor) -> None:
            self.keys[i][rows_M, :, places_M] = k_NJE[sources_M]
            self.values[i][rows_M, :, places_M] = v_NJE[sources_M]

        ids_N = torch.tensor([token for entry in entries for token in entry.prompt], device=device)
        positions_N = torch.cat([torch.arange(length, device=device) for length in lengths])
        tables = trunk.plan(Layout(lengths, [[] for _ in lengths]))
        x_ND = trunk.walk(trunk.embed(ids_N), positions_N, tables, self.adapter, keep=keep)
        return trunk.normal(x_ND[last_A])

    def step(self, tokens_A: Tensor) -> Tensor:
        trunk = self.trunk
        count = len(self.lengths)
        device = tokens_A.device
        lengths_A = torch.tensor(self.lengths, device=device)
        rows_A = torch.arange(count, device=device)
        self._make_room(max(self.lengths) + 1)
        width = self.keys[0].shape[2]
        # Where the token's keys and values go, a place for each key-value head.
        heads_J = torch.arange(trunk.num_kv_heads, device=device)
        places_M = ((rows_A[:, None] * trunk.num_kv_heads + heads_J) * width + lengths_A[:, None]).flatten()
        x_AD = trunk.embed(tokens_A)
        mask_AS = torch.zeros(count, width, dtype=x_AD.dtype, device=device)
        mask_AS.masked_fill_(torch.arange(width, device=device) > lengths_A[:, None], float("-inf"))

        def attend(i: int, q_AHE: Tensor, k_AJE: Tensor, v_AJE: Tensor) -> Tensor:
            self.keys[i].view(-1, trunk.head_size).index_copy_(0, places_M, k_AJE.reshape(-1, trunk.head_size))
            self.values[i].view(-1, trunk.head_size).index_copy_(0, places_M, v_AJE.reshape(-1, trunk.head_size))
            q_AJRE = q_AHE.view(count, trunk.num_kv_heads, trunk.ratio, trunk.head_size)
            scores_AJRS = torch.matmul(q_AJRE, self.keys[i][:count].transpose(2, 3)).add_(mask_AS[:, None, None])
            return torch.matmul(scores_AJRS.softmax(-1), self.values[i][:count]).view(count, -1)

        x_AD = trunk.advance(x_AD, lengths_A, self.adapter, attend)
        self.lengths = [length + 1 for length in self.lengths]
        return trunk.normal(x_AD)

    def leave(self, places: Sequence[int]) -> list[int]:
        gone = set(places)
        staying = [place for place in range(len(self.lengths)) if place not in gone]
        # Only rows from the end move, into the places that became free.
        free = [place for place in sorted(gone) if place < len(staying)]
        moved = [place for place in staying if place >= len(staying)]
        if moved:
            into, source = torch.tensor(free), torch.tensor(moved)
            used = max(self.lengths[place] for place in moved)
            for tensor in (*self.keys, *self.values):
                tensor[into, :, :used] = tensor[source, :, :used]
        order = list(range(len(staying)))
        for place, came in zip(free, moved, strict=True):
            order[place] = came
        self.lengths = [self.lengths[place] for place in order]
        return order


class ModelDecoder:
    """Over any causal model's own forward pass and cache, prompts padded on the left. Rows enter when none are in flight."""

    joins = False

    def __init__(self, model: Any, adapter: str | None) -> None:
        self.model, self.adapter = model, adapter
        self.cache: Any = None
        self.mask_AS = torch.zeros(0)

    def enter(self, entries: Sequence[Entry]) -> Tensor:
        from transformers import DynamicCache

        device = self.model.device
        width = max(len(entry.prompt) for entry in entries)
        ids = torch.full((len(entries), width), self.model.chat.pad_id, dtype=torch.long)
        mask = torch.zeros(len(entries), width, dtype=torch.bool)
        for row, entry in enumerate(entries):
            ids[row, width - len(entry.prompt) :] = torch.tensor(entry.prompt, dtype=torch.long)
            mask[row, width - len(entry.prompt) :] = True
        self.cache = DynamicCache(config=self.model.causal.config)
        mask = mask.to(device)
        hidden = self._hidden(ids.to(device), mask, (mask.cumsum(1) - 1).clamp(min=0))
        rows = torch.tensor([row for row, entry in enumerate(entries) for _ in range(entry.copies)], device=device)
        self.cache.batch_select_indices(rows)
        self.mask_AS = mask[rows]
        return hidden[rows]

    def step(self, tokens_A: Tensor) -> Tensor:
        positions = self.mask_AS.sum(1, keepdim=True)
        self.mask_AS = torch.cat([self.mask_AS, self.mask_AS.new_ones(len(tokens_A), 1)], dim=1)
        return self._hidden(tokens_A[:, None], self.mask_AS, positions)

    def _hidden(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        options = {"past_key_values": self.cache, "position_ids": positions, "use_cache": True}
        hidden = self.model.hidden(ids, mask, adapter=self.adapter, **options)
        return hidden[:, -1]  # type: ignore[no-any-return]

    def leave(self, places: Sequence[int]) -> list[int]:
        gone = set(places)
        order = [place for place in range(len(self.mask_AS)) if place not in gone]
        kept = torch.tensor(order, dtype=torch.long, device=self.mask_AS.device)
        self.cache.batch_select_indices(kept)
        self.mask_AS = self.mask_AS[kept]
        return order
