"""Attention over packed prompts and responses against a slow loop over single tokens, with gradients."""

# N tokens laid end to end, H query heads, J key-value heads, E head size

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.models.trunk import attention
from heedful.models.trunk.attention import Layout, attend, plan

CPU = torch.device("cpu")
FLOAT64 = 1e-12
HEADS, KV_HEADS, SIZE = 6, 2, 4

prompt_with_responses = st.tuples(st.integers(0, 5), st.lists(st.integers(0, 4), max_size=3)).filter(
    lambda found: found[0] > 0 or (len(found[1]) > 0 and all(found[1]))
)
layouts = st.lists(prompt_with_responses, min_size=1, max_size=3).map(
    lambda found: Layout([length for length, _ in found], [responses for _, responses in found])
)


def inputs(layout: Layout, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(layout.num_tokens, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    q, k, v = (torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes)
    return q, k, v


def sequences(layout: Layout) -> list[tuple[int, list[int]]]:
    """For each prompt and each response: how many of its first tokens were another's, and the places of what it reads."""
    found, first = [], 0
    for length, responses in zip(layout.prompt_lengths, layout.responses, strict=True):
        prompt = list(range(first, first + length))
        found.append((0, prompt))
        first += length
        for count in responses:
            found.append((length, [*prompt, *range(first, first + count)]))
            first += count
    return found


def slow(q_NHE: Tensor, k_NJE: Tensor, v_NJE: Tensor, layout: Layout) -> Tensor:
    rows: dict[int, Tensor] = {}
    for own, places in sequences(layout):
        for i in range(own, len(places)):
            seen = places[: i + 1]
            heads = []
            for head in range(HEADS):
                kv = head // (HEADS // KV_HEADS)
                chance = torch.softmax(k_NJE[seen, kv] @ q_NHE[places[i], head], dim=0)
                heads.append(chance @ v_NJE[seen, kv])
            rows[places[i]] = torch.cat(heads)
    return torch.stack([rows[place] for place in range(layout.num_tokens)])


@settings(deadline=None, max_examples=40)
@given(layouts, st.integers(0, 100), st.booleans())
def test_packed_attention_equals_the_slow_loop_with_gradients(layout: Layout, seed: int, together: bool) -> None:
    """together: all groups padded to one size, else each by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "APART", 10**9 if together else -1)
        patch.setattr(attention, "WORTH", 0)
        compare(layout, seed, num_parts=1 if together else len(layout.prompt_lengths))


def test_groups_of_unlike_size_are_computed_apart() -> None:
    compare(Layout([3, 70, 75], [[2, 3], [40, 20], [38]]), 5, num_parts=2)


def compare(layout: Layout, seed: int, *, num_parts: int) -> None:
    leaves = inputs(layout, seed)
    tables = plan(layout, num_heads=HEADS, num_kv_heads=KV_HEADS, dtype=torch.float64, device=CPU)
    assert len(tables) == num_parts
    fast, exact = attend(*leaves, tables), slow(*leaves, layout)
    torch.testing.assert_close(fast, exact, atol=FLOAT64, rtol=0)
    weights = torch.randn(fast.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    for found, expected in zip(
        torch.autograd.grad(fast, leaves, weights), torch.autograd.grad(exact, leaves, weights), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=FLOAT64, rtol=0)


def test_a_response_sees_neither_its_sibling_nor_its_end() -> None:
    layout = Layout([2], [[2, 2]])
    tables = plan(layout, num_heads=HEADS, num_kv_heads=KV_HEADS, dtype=torch.float64, device=CPU)
    q, k, v = inputs(layout, 0)
    found = attend(q, k, v, tables)
    for changed, untouched in ((2, [0, 1, 4, 5]), (3, [0, 1, 2, 4, 5]), (0, []), (1, [0])):
        other = v.detach().clone()
        other[changed] += 1
        again = attend(q, k, other, tables)
        same = [place for place in range(6) if torch.equal(again[place], found[place])]
        assert same == untouched, f"token {changed} is read by the wrong ones"
