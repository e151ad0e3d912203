"""Grouping by tokens: padded rows, and prompts that count once for all their responses."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.engine.batching import batches_by_tokens, packed_batches

tokens = st.lists(st.integers(0, 9), max_size=6)
prompts_and_responses = st.lists(st.tuples(tokens.filter(bool), tokens), min_size=1, max_size=5)


def test_batches_by_hand() -> None:
    # 7 > 6 stands alone; 3 + 3 fill 2 x 3 = 6; 2, 1, 1 fill 3 x 2 = 6; the last 1 opens a batch.
    assert batches_by_tokens([1, 3, 7, 2, 3, 1, 1], 6) == [[2], [1, 4], [3, 0, 5], [6]]


def test_a_batch_may_fill_its_budget_exactly() -> None:
    assert batches_by_tokens([5, 5, 5], 10) == [[0, 1], [2]]
    assert batches_by_tokens([5, 5, 5], 9) == [[0], [1], [2]]


def test_no_sequences_no_batches() -> None:
    assert batches_by_tokens([], 10) == []


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 120))
def test_each_index_once_and_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    batches = batches_by_tokens(lengths, max_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch, "an empty batch"
        longest = max(lengths[i] for i in batch)
        assert len(batch) * longest <= max_tokens or len(batch) == 1
        if longest > max_tokens:
            assert len(batch) == 1
    order = [i for batch in batches for i in batch]
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True), "longest first"
    assert all(i < j for i, j in itertools.pairwise(order) if lengths[i] == lengths[j]), "ties in order"
    for batch, following in itertools.pairwise(batches):
        assert (len(batch) + 1) * lengths[batch[0]] > max_tokens, f"{following[0]} would have fitted into the batch before"


def test_packed_batches_by_hand() -> None:
    # Prompt [1, 2] has answers of 3 and 2 tokens: 7 with the prompt once. [5] has one of 4: 5 tokens. [6, 6, 6] one of 1: 4.
    prompts, responses = [[1, 2], [5], [1, 2], [6, 6, 6]], [[0] * 3, [0] * 4, [0] * 2, [0]]
    assert packed_batches(prompts, responses, 12) == [[0, 2, 1], [3]]
    assert packed_batches(prompts, responses, 9) == [[0, 2], [1, 3]]
    assert packed_batches(prompts, responses, 5) == [[0], [1], [2], [3]], "the answers to one prompt are parted only by need"


@settings(deadline=None)
@given(prompts_and_responses, st.integers(1, 20))
def test_packed_batches_hold_each_index_once_within_the_budget(found: list[tuple[list[int], list[int]]], budget: int) -> None:
    prompts, responses = [prompt for prompt, _ in found], [response for _, response in found]
    batches = packed_batches(prompts, responses, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(found)))
    for batch in batches:
        cost = sum(map(len, {tuple(prompts[i]) for i in batch})) + sum(len(responses[i]) for i in batch)
        assert cost <= budget or len({tuple(prompts[i]) for i in batch}) == 1
        if cost > budget:
            assert len(batch) == 1 or all(not responses[i] for i in batch) or sum(bool(responses[i]) for i in batch) == 1
