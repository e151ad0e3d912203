"""Grouping by tokens, and padding that keeps each response token beside the place that predicts it."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.engine.batching import Sequences, batches_by_tokens, pad

CPU = torch.device("cpu")

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


def places(sequences: Sequences) -> Tensor:
    """Hidden states (B, S, 3) that say where they stand: row, place and the id of the token there."""
    num_rows, width = sequences.ids_BS.shape
    rows_BS = torch.arange(num_rows)[:, None].expand(-1, width)
    places_BS = torch.arange(width).expand(num_rows, -1)
    return torch.stack([rows_BS, places_BS, sequences.ids_BS], dim=-1)


def test_pad_by_hand() -> None:
    # The end of text, 2, is the pad id as well: the mask keeps the real one.
    found = pad([[5, 6], [7]], [[8, 2], [9]], pad_id=2, device=CPU)
    assert found.ids_BS.tolist() == [[5, 6, 8, 2], [7, 9, 2, 2]]
    assert found.mask_BS.tolist() == [[True, True, True, True], [True, True, False, False]]
    assert found.rows_N.tolist() == [0, 0, 1]
    assert found.places_N.tolist() == [1, 2, 0]
    assert found.targets_N.tolist() == [8, 2, 9]
    # 8 is predicted at the prompt's last token 6, the end of text at 8, 9 at 7.
    assert found.predicting(places(found)).tolist() == [[0, 1, 6], [0, 2, 8], [1, 0, 7]]


def test_an_empty_response_has_no_target() -> None:
    found = pad([[5, 6], [7], [8]], [[], [9], []], pad_id=0, device=CPU)
    assert found.ids_BS.tolist() == [[5, 6], [7, 9], [8, 0]]
    assert found.mask_BS.tolist() == [[True, True], [True, True], [True, False]]
    assert found.predicting(places(found)).tolist() == [[1, 0, 7]]
    nothing = pad([[5, 6]], [[]], pad_id=0, device=CPU)
    assert nothing.targets_N.shape == (0,)
    assert nothing.predicting(places(nothing)).shape == (0, 3)


@settings(deadline=None)
@given(prompts_and_responses, st.integers(0, 9))
def test_each_response_token_is_predicted_by_the_one_before(found: list[tuple[list[int], list[int]]], pad_id: int) -> None:
    prompts, responses = [prompt for prompt, _ in found], [response for _, response in found]
    sequences = pad(prompts, responses, pad_id=pad_id, device=CPU)
    expected, targets = [], []
    for row, (prompt, response) in enumerate(found):
        whole = prompt + response
        for place in range(len(prompt), len(whole)):
            expected.append([row, place - 1, whole[place - 1]])
            targets.append(whole[place])
        assert sequences.ids_BS[row][sequences.mask_BS[row]].tolist() == whole
        assert sequences.ids_BS[row][~sequences.mask_BS[row]].tolist() == [pad_id] * (sequences.mask_BS.shape[1] - len(whole))
    assert sequences.targets_N.tolist() == targets
    assert sequences.predicting(places(sequences)).tolist() == expected
    assert sequences.mask_BS.shape[1] == max(len(prompt) + len(response) for prompt, response in found)


def test_predicting_is_differentiable() -> None:
    sequences = pad([[5, 6], [7]], [[8, 2], [9]], pad_id=2, device=CPU)
    hidden_BSD = torch.zeros(2, 4, 1, requires_grad=True)
    sequences.predicting(hidden_BSD).sum().backward()
    assert hidden_BSD.grad is not None
    assert hidden_BSD.grad[:, :, 0].tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]


def test_prompts_and_responses_must_be_as_many() -> None:
    with pytest.raises(ValueError):
        pad([[1], [2]], [[3]], pad_id=0, device=CPU)
