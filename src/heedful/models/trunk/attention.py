"""Causal attention over prompts and their responses, each prompt computed once however many responses it has.

Tokens lie end to end; only scores are padded, among neighbouring prompts of like size.
The products are plain batched matrix products: on processors these run at the rate of the linear layers, several times
that of the fused kernel and of its backward above all (docs/decisions/0005-the-trunk.md has the figures).
"""

# N tokens laid end to end, G prompts, P longest prompt, K most responses of a prompt, T longest response,
# H query heads, J key-value heads, R query heads a key-value head, E head size

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

VECTOR = 16  # numbers that a processor computes side by side, for scores
# Groups are padded together while that costs at most a fifth more scores than apart, or a few thousand: what a call costs.
WORTH, APART = 1.2, 4096


@dataclass(frozen=True)
class Layout:
    """Where each token of a batch stands.

    prompt_lengths: tokens of each prompt. responses: for each prompt the lengths of its responses. Tokens lie as prompt,
    its responses, next prompt. Prompts and responses may be empty.
    """

    prompt_lengths: Sequence[int]
    responses: Sequence[Sequence[int]]

    @property
    def num_tokens(self) -> int:
        return sum(self.prompt_lengths) + sum(map(sum, self.responses))


@dataclass(frozen=True)
class Rows:
    """Which row of a tensor with a row a token and head fills each padded place, prompts' places before responses'.

    prompts, responses: row numbers; what pads repeats row 0. pads: the places that pad. back: for each row its place.
    """

    prompts: Tensor
    responses: Tensor
    pads: tuple[Tensor, Tensor]
    back: Tensor


@dataclass(frozen=True)
class Part:
    """Some groups of a layout that are padded to one size, as index tables; the same for all layers.

    start, stop: their tokens, to which the row numbers are relative.
    queries: rows of q (N H), places (G J R P) and (G J K R T). keys: of k and v (N J), places (G J P) and (G J K T).
    seen: rows of k and v that a response's tokens see, its prompt's and its own (G J K P+T).
    mask_PP, mask_GTS: added to scores, 0 where a token is seen and -inf elsewhere; S is P + T.
    """

    start: int
    stop: int
    shape: tuple[int, int, int, int]  # G, P, K, T
    heads: tuple[int, int]  # J, R
    queries: Rows
    keys: Rows
    seen: Tensor
    mask_PP: Tensor
    mask_GTS: Tensor


Plan = tuple[Part, ...]


def plan(layout: Layout, *, num_heads: int, num_kv_heads: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """The tables of a layout: neighbouring groups of like size are padded and computed together."""
    parts, start = [], 0
    for some in _alike(layout):
        parts.append(_part(some, start, num_heads, num_kv_heads, dtype, device))
        start = parts[-1].stop
    return tuple(parts)


def _alike(layout: Layout) -> list[Layout]:
    """The layout cut between groups where padding one to the other would cost more than computing them apart."""
    runs: list[Layout] = []
    for prompt, responses in zip(layout.prompt_lengths, layout.responses, strict=True):
        one = Layout([prompt], [responses])
        if runs:
            both = Layout([*runs[-1].prompt_lengths, prompt], [*runs[-1].responses, responses])
            if _num_scores(both) <= WORTH * (_num_scores(runs[-1]) + _num_scores(one)) + APART:
                runs[-1] = both
                continue
        runs.append(one)
    return runs


def _num_scores(layout: Layout) -> int:
    """Scores of one head when the groups are padded to one size."""
    g, p, k, t = _padded_shape(layout)
    return g * (p * p + k * t * (p + t))


def _padded_shape(layout: Layout) -> tuple[int, int, int, int]:
    """G, P, K, T."""
    longest = _rounded(max(layout.prompt_lengths))
    widest = _rounded(max((length for lengths in layout.responses for length in lengths), default=0))
    return len(layout.prompt_lengths), longest, max(map(len, layout.responses)) if widest else 0, widest


def _part(layout: Layout, start: int, num_heads: int, num_kv_heads: int, dtype: torch.dtype, device: torch.device) -> Part:
    num_groups, longest, most, widest = _padded_shape(layout)
    prompts_GP = torch.full((num_groups, longest), -1, dtype=torch.long)
    responses_GKT = torch.full((num_groups, most, widest), -1, dtype=torch.long)
    first = 0
    for g, (length, responses) in enumerate(zip(layout.prompt_lengths, layout.responses, strict=True)):
        prompts_GP[g, :length] = torch.arange(first, first + length)
        first += length
        for k, count in enumerate(responses):
            if count:
                responses_GKT[g, k, :count] = torch.arange(first, first + count)
            first += count
    ratio = num_heads // num_kv_heads
    head_JR = torch.arange(num_heads).view(num_kv_heads, ratio)
    head_J = torch.arange(num_kv_heads)
    queries = _rows(
        _of_heads(prompts_GP[:, None, None, :], head_JR[None, :, :, None], num_heads),
        _of_heads(responses_GKT[:, None, :, None, :], head_JR[None, :, None, :, None], num_heads),
        device,
    )
    key_prompts = _of_heads(prompts_GP[:, None, :], head_J[None, :, None], num_kv_heads)
    key_responses = _of_heads(responses_GKT[:, None, :, :], head_J[None, :, None, None], num_kv_heads)
    seen_GKS = torch.cat([prompts_GP[:, None, :].expand(-1, most, -1), responses_GKT], dim=-1)
    seen = _of_heads(seen_GKS[:, None], head_J[None, :, None, None], num_kv_heads).clamp(min=0)
    mask_GTS = torch.full((num_groups, widest, longest + widest), float("-inf"))
    lengths_G = torch.tensor(list(layout.prompt_lengths))
    mask_GTS[:, :, :longest].masked_fill_((torch.arange(longest) < lengths_G[:, None])[:, None, :], 0.0)
    mask_GTS[:, :, longest:] = _causal(widest)
    return Part(
        start,
        start + layout.num_tokens,
        (num_groups, longest, most, widest),
        (num_kv_heads, ratio),
        queries,
        _rows(key_prompts, key_responses, device),
        seen.to(device),
        _causal(longest).to(device, dtype),
        mask_GTS.to(device, dtype),
    )


def _rounded(length: int) -> int:
    """Up to a whole number of vectors: rows of other lengths leave a rest that takes as long as a vector."""
    return -(-length // VECTOR) * VECTOR


def _of_heads(tokens: Tensor, heads: Tensor, num_heads: int) -> Tensor:
    return torch.where(tokens >= 0, tokens * num_heads + heads, -1).flatten()


def _rows(prompts: Tensor, responses: Tensor, device: torch.device) -> Rows:
    both = torch.cat([prompts, responses])
    places = torch.nonzero(both >= 0)[:, 0]
    back = torch.empty(len(places), dtype=torch.long)
    back[both[places]] = places
    pads = tuple(torch.nonzero(rows < 0)[:, 0].to(device) for rows in (prompts, responses))
    return Rows(prompts.clamp(min=0).to(device), responses.clamp(min=0).to(device), (pads[0], pads[1]), back.to(device))


def _causal(size: int) -> Tensor:
    return torch.full((size, size), float("-inf")).triu(1)


def attend(q_NHE: Tensor, k_NJE: Tensor, v_NJE: Tensor, tables: Plan) -> Tensor:
    """softmax(q k^T) v for each token over its prompt and itself, (N, H E); q is scaled already. Differentiable."""
    return _Attention.apply(q_NHE, k_NJE, v_NJE, tables)  # type: ignore[no-any-return, no-untyped-call]


class _Attention(torch.autograd.Function):
    """Keeps q, k and v; the probabilities are computed again in the backward."""

    @staticmethod
    def forward(ctx: Any, q_NHE: Tensor, k_NJE: Tensor, v_NJE: Tensor, tables: Plan) -> Tensor:
        ctx.save_for_backward(q_NHE, k_NJE, v_NJE)
        ctx.tables = tables
        found = []
        for part in tables:
            tokens = slice(part.start, part.stop)
            found.append(_forward(q_NHE[tokens], k_NJE[tokens], v_NJE[tokens], part))
        return torch.cat(found) if len(found) > 1 else found[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q_NHE, k_NJE, v_NJE = ctx.saved_tensors
        found = []
        for part in ctx.tables:
            tokens = slice(part.start, part.stop)
            found.append(_backward(q_NHE[tokens], k_NJE[tokens], v_NJE[tokens], grads[0][tokens], part))
        dq, dk, dv = (torch.cat(column) if len(found) > 1 else column[0] for column in zip(*found, strict=True))
        return dq, dk, dv, None


def _forward(q_NHE: Tensor, k_NJE: Tensor, v_NJE: Tensor, part: Part) -> Tensor:
    flat = torch.cat([padded.output().view(-1, q_NHE.shape[-1]) for padded in _padded(q_NHE, k_NJE, v_NJE, part)])
    return flat.index_select(0, part.queries.back).view(q_NHE.shape[0], -1)


def _backward(q_NHE: Tensor, k_NJE: Tensor, v_NJE: Tensor, grad_NQ: Tensor, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    g, p, k, t = part.shape
    size = q_NHE.shape[-1]
    prompts, responses = _padded(q_NHE, k_NJE, v_NJE, part)
    rows, queries = grad_NQ.reshape(-1, size), part.queries
    dq_p, dk_p, dv_p = prompts.gradients(rows.index_select(0, queries.prompts).index_fill_(0, queries.pads[0], 0))
    dq_r, dk_r, dv_r = responses.gradients(rows.index_select(0, queries.responses).index_fill_(0, queries.pads[1], 0))
    dq = torch.cat([dq_p.view(-1, size), dq_r.view(-1, size)]).index_select(0, queries.back)
    found = []
    for of_prompts, of_responses in ((dk_p, dk_r), (dv_p, dv_r)):
        through = of_responses.view(g * part.heads[0], k, p + t, size)
        of_prompts += through[:, :, :p].sum(dim=1)  # a prompt is seen by its responses too
        flat = torch.cat([of_prompts.view(-1, size), through[:, :, p:].reshape(-1, size)])
        found.append(flat.index_select(0, part.keys.back).view_as(k_NJE))
    return dq.view_as(q_NHE), found[0], found[1]


def _padded(q_NHE: Tensor, k_NJE: Tensor, v_NJE: Tensor, tables: Part) -> tuple[_Padded, _Padded]:
    """Prompts, and responses with what they see, padded."""
    g, p, k, t = tables.shape
    j, r = tables.heads
    size = q_NHE.shape[-1]
    q, keys, values = (rows.reshape(-1, size) for rows in (q_NHE, k_NJE, v_NJE))
    of_prompts = _Padded(
        q.index_select(0, tables.queries.prompts).view(g * j, r * p, size),
        keys.index_select(0, tables.keys.prompts).view(g * j, p, size),
        values.index_select(0, tables.keys.prompts).view(g * j, p, size),
        tables.mask_PP,
        (g * j * r, p, p),
    )
    of_responses = _Padded(
        q.index_select(0, tables.queries.responses).view(g * j * k, r * t, size),
        keys.index_select(0, tables.seen).view(g * j * k, p + t, size),
        values.index_select(0, tables.seen).view(g * j * k, p + t, size),
        tables.mask_GTS[:, None],
        (g, j * k * r, t, p + t),
    )
    return of_prompts, of_responses


class _Padded:
    """Sequences of equal padded length. q (Z, L, E), k and v (Z, S, E); mask is added to scores viewed as `shape`."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, shape: tuple[int, ...]) -> None:
        self.q, self.k, self.v = q, k, v
        scores = torch.bmm(q, k.transpose(1, 2))
        scores.view(shape).add_(mask)
        self.probabilities = torch.softmax(scores, dim=-1)

    def output(self) -> Tensor:
        return torch.bmm(self.probabilities, self.v)

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dq, dk, dv from the gradient of `output`, 0 where q pads."""
        grad = grad.view_as(self.q)
        through = torch.bmm(grad, self.v.transpose(1, 2))
        scores = torch._softmax_backward_data(through, self.probabilities, -1, through.dtype)
        d_values = torch.bmm(self.probabilities.transpose(1, 2), grad)
        return torch.bmm(scores, self.k), torch.bmm(scores.transpose(1, 2), self.q), d_values
