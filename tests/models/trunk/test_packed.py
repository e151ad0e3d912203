"""Laying prompts and responses end to end: each response token beside the place that predicts it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.models.trunk.packed import pack, padded, shared_tokens

CPU = torch.device("cpu")

tokens = st.lists(st.integers(0, 9), max_size=6)
prompts_and_responses = st.lists(st.tuples(tokens.filter(bool), tokens), min_size=1, max_size=6)


def test_pack_by_hand() -> None:
    # The first and the third answer [5, 6]: it is laid down once. 2 ends the text. Longer responses lie first.
    found = pack([[5, 6], [7], [5, 6]], [[8, 2], [9], [4, 4, 2]], device=CPU)
    assert found.ids_N.tolist() == [5, 6, 8, 2, 4, 4, 2, 7, 9]
    assert found.positions_N.tolist() == [0, 1, 2, 3, 2, 3, 4, 0, 1]
    assert (list(found.layout.prompt_lengths), [list(part) for part in found.layout.responses]) == ([2, 1], [[2, 3], [1]])
    assert found.targets_M.tolist() == [8, 2, 9, 4, 4, 2]
    assert found.before_M.tolist() == [1, 2, 7, 1, 4, 5]
    assert [found.places(i) for i in range(3)] == [[0, 1, 2, 3], [7, 8], [0, 1, 4, 5, 6]]
    assert shared_tokens([([5, 6], [8, 2]), ([7], [9]), ([5, 6], [4, 4, 2])]) == 9


def test_an_empty_response_has_no_target() -> None:
    found = pack([[5, 6], [7]], [[], [9]], device=CPU)
    assert found.targets_M.tolist() == [9]
    assert found.ids_N.tolist() == [7, 9, 5, 6]
    assert found.before_M.tolist() == [0]
    assert found.lengths == [0, 1]
    nothing = pack([[5, 6]], [[]], device=CPU)
    assert nothing.predicting(torch.zeros(2, 3)).shape == (0, 3)


def test_without_a_prompt_nothing_predicts_the_first_token() -> None:
    found = pack([[5], []], [[7, 7], [8]], device=CPU)
    assert found.ids_N[found.places(1)].tolist() == [8]
    with pytest.raises(IndexError):
        found.predicting(torch.zeros(4, 3))


@settings(deadline=None)
@given(prompts_and_responses, st.integers(0, 9))
def test_each_response_token_is_predicted_by_the_one_before(found: list[tuple[list[int], list[int]]], pad_id: int) -> None:
    prompts, responses = [prompt for prompt, _ in found], [response for _, response in found]
    packed = pack(prompts, responses, device=CPU)
    assert len(packed.ids_N) == shared_tokens(found) == packed.layout.num_tokens
    before, positions = iter(packed.before_M.tolist()), packed.positions_N.tolist()
    for i, (prompt, response) in enumerate(found):
        places = packed.places(i)
        assert packed.ids_N[places].tolist() == prompt + response
        assert [positions[place] for place in places] == list(range(len(places)))
        assert [next(before) for _ in response] == places[len(prompt) - 1 : -1]
    assert packed.targets_M.tolist() == [token for response in responses for token in response]
    ids_BS, mask_BS, place_N = padded(packed, pad_id=pad_id)
    for row, (prompt, response) in enumerate(found):
        assert ids_BS[row][mask_BS[row]].tolist() == prompt + response
        assert ids_BS[row][~mask_BS[row]].tolist() == [pad_id] * int((~mask_BS[row]).sum())
    assert ids_BS.flatten()[place_N].tolist() == packed.ids_N.tolist()


def test_predicting_is_differentiable() -> None:
    packed = pack([[5, 6], [5, 6]], [[8, 2], [9]], device=CPU)
    hidden_ND = torch.zeros(len(packed.ids_N), 1, requires_grad=True)
    packed.predicting(hidden_ND).sum().backward()
    assert hidden_ND.grad is not None
    assert hidden_ND.grad[:, 0].tolist() == [0, 2, 1, 0, 0], "a prompt's last token predicts the first of both responses"


def test_prompts_and_responses_must_be_as_many() -> None:
    with pytest.raises(ValueError):
        pack([[1], [2]], [[3]], device=CPU)
