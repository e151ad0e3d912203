"""Prompts and responses laid end to end, each prompt once however many responses it has."""

# M response tokens, N tokens laid end to end, B responses, S prompt + response tokens, D hidden size

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heedful.models.trunk.attention import Layout


@dataclass(frozen=True)
class Packed:
    """A batch of responses and what they answer.

    layout, ids_N, positions_N: the tokens as the trunk reads them; ids: the same as a list. lengths: tokens of each response,
    in the caller's order. before_M, targets_M: for each response token, response after response in that order, the place whose
    hidden state predicts it and its id. first: for each response the place of its first token. prompts: for each response the
    place of its prompt's first token and the prompt's length.
    """

    layout: Layout
    ids_N: Tensor
    positions_N: Tensor
    lengths: list[int]
    before_M: Tensor
    targets_M: Tensor
    first: list[int]
    prompts: list[tuple[int, int]]
    ids: list[int]

    def predicting(self, hidden_ND: Tensor) -> Tensor:
        """Hidden states (M, D) from which each response token is predicted."""
        return hidden_ND.index_select(0, self.before_M)

    def places(self, i: int) -> list[int]:
        """Where the tokens of the i-th response's prompt and of the response itself stand."""
        start, length = self.prompts[i]
        return [*range(start, start + length), *range(self.first[i], self.first[i] + self.lengths[i])]


def pack(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, device: torch.device) -> Packed:
    """One row of `prompts` a response; equal ones are laid down once. A response may be empty; where its log-probs are
    read, its prompt needs a token.
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, _) in enumerate(zip(prompts, responses, strict=True)):
        members.setdefault(tuple(prompt), []).append(i)
    ids: list[int] = []
    positions: list[int] = []
    first = [0] * len(prompts)
    where = [(0, 0)] * len(prompts)
    # Prompts of like size lie side by side, where the attention pads them to one another.
    groups = sorted(members.items(), key=lambda group: (-max(len(responses[i]) for i in group[1]), -len(group[0]), group[1][0]))
    for prompt, owned in groups:
        start = len(ids)
        ids += prompt
        positions += range(len(prompt))
        for i in owned:
            where[i] = (start, len(prompt))
            first[i] = len(ids)
            ids += responses[i]
            positions += range(len(prompt), len(prompt) + len(responses[i]))
    before: list[int] = []
    for i, response in enumerate(responses):
        if response:
            start, length = where[i]
            # Nothing comes before the first token of all; whoever asks for what predicts it is told by an error.
            before += [start + length - 1 if length else -1, *range(first[i], first[i] + len(response) - 1)]
    layout = Layout([len(prompt) for prompt, _ in groups], [[len(responses[i]) for i in owned] for _, owned in groups])
    targets = [token for response in responses for token in response]
    flat = [torch.tensor(part, dtype=torch.long, device=device) for part in (ids, positions, before, targets)]
    lengths = [len(response) for response in responses]
    return Packed(layout, flat[0], flat[1], lengths, flat[2], flat[3], first, where, ids)


def shared_tokens(read: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
    """Tokens of pairs of prompt and response, a prompt that some of them have in common counting once."""
    return sum(map(len, {tuple(prompt) for prompt, _ in read})) + sum(len(response) for _, response in read)


def padded(packed: Packed, *, pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same batch a row a response: ids (B, S), mask (B, S) True on real tokens, and for each of the N tokens its place
    in the flattened (B S). For models that the packed trunk does not know.
    """
    rows = [packed.places(i) for i in range(len(packed.lengths))]
    width = max(map(len, rows))
    ids_BS = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask_BS = torch.zeros(len(rows), width, dtype=torch.bool)
    place_N = torch.zeros(len(packed.ids_N), dtype=torch.long)
    ids_N = packed.ids_N.cpu()
    for i, row in enumerate(rows):
        ids_BS[i, : len(row)] = ids_N[row]
        mask_BS[i, : len(row)] = True
        place_N[row] = i * width + torch.arange(len(row))
    device = packed.ids_N.device
    return ids_BS.to(device), mask_BS.to(device), place_N.to(device)
