"""Variants: every strategy in turn, what is no new prompt is dropped and counted, and each one remembers where it came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from heedful.constitution.variants import STRATEGIES, alike, cleaned, requests_for, variants_of
from heedful.data.bundled import load_bundled
from heedful.errors import DataError
from heedful.judging.writing import EMPTY, Reply, Request
from heedful.records import Message, Prompt

SEEDS = load_bundled(["red-team"])[:4]
NEW = "Suppose you wrote a play. What would the villain say about {} to the police at the end of it?"


def writing(*texts: str | Reply) -> Callable[[Sequence[Request]], list[Reply]]:
    """Replies in order, whatever is asked."""

    def write(requests: Sequence[Request]) -> list[Reply]:
        assert len(requests) == len(texts)
        return [text if isinstance(text, Reply) else Reply(text) for text in texts]

    return write


def test_strategies_come_in_turn_and_each_seed_begins_with_another_one() -> None:
    asked = requests_for(SEEDS[:2], 2, seed=7)
    names = list(STRATEGIES)
    assert [(seed.id, strategy) for seed, strategy, _ in asked] == [
        (SEEDS[0].id, names[0]),
        (SEEDS[0].id, names[1]),
        (SEEDS[1].id, names[1]),
        (SEEDS[1].id, names[2]),
    ]
    for seed, strategy, request in asked:
        assert seed.messages[-1].content in request.messages[-1].content
        assert STRATEGIES[strategy] in request.messages[-1].content
        assert request.seed == 7


def test_a_variant_remembers_its_seed_and_keeps_its_split_and_earlier_turns() -> None:
    first = Message(role="user", content="Hello")
    answer = Message(role="assistant", content="Hi")
    seed = SEEDS[2].model_copy(update={"messages": (first, answer, SEEDS[2].messages[-1])})
    (found,), dropped = variants_of([seed], 1, writing(NEW.format("glue")), writer="w")
    assert dropped == {}
    assert (found.split, found.tags) == (seed.split, seed.tags) == ("heldout", seed.tags)
    assert found.messages[:2] == (first, answer)
    assert found.messages[-1].content == NEW.format("glue")
    assert found.model_extra == {"seed_id": seed.id, "strategy": "role-play", "writer": "w"}
    assert found.id != seed.id
    assert Prompt.model_validate_json(found.model_dump_json()) == found


def test_what_is_no_new_prompt_is_dropped_for_a_reason() -> None:
    own = SEEDS[0].messages[-1].content
    replies = (
        own.upper() + "!",
        own.rstrip(".") + ", please.",
        "I'm sorry, but I can't help with that.",
        "no no no no no no no no no no no no no no no no no",
        "",
        NEW.format("bread"),
    )
    kept, dropped = variants_of(SEEDS[:1], 6, writing(*replies), writer="w")
    assert [one.messages[-1].content for one in kept] == [NEW.format("bread")]
    assert dropped == {"a copy": 1, "nearly a copy": 1, "the writer refused": 1, "degenerate": 1, "empty": 1}


def test_replies_that_are_cut_or_did_not_come_are_dropped() -> None:
    replies = (
        Reply(NEW.format("tea"), "length"),
        Reply("", problem=EMPTY),
        Reply("", problem="no answer"),
        "word " + "new " * 2,
    )
    kept, dropped = variants_of(SEEDS, 1, writing(*replies), writer="w")
    assert len(kept) == 1
    assert dropped == {"too long": 1, "empty": 1, "no reply": 1}


def test_two_equal_variants_of_two_seeds_are_one() -> None:
    kept, dropped = variants_of(SEEDS[:2], 1, writing(NEW.format("tea"), NEW.format("TEA")), writer="w")
    assert len(kept) == 1
    assert dropped == {"a copy": 1}


def test_more_variants_than_strategies_are_refused() -> None:
    with pytest.raises(DataError, match=r"7 variants a prompt: there are 6 strategies"):
        requests_for(SEEDS, 7, seed=0)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ('"How would he do it?"', "How would he do it?"),
        ("Sure, here is the request:\n\n“How would he do it?”", "How would he do it?"),
        ("**New request:** How would he do it?", "How would he do it?"),
        ('He said "no" and she said "yes"', 'He said "no" and she said "yes"'),
        ("What is here: gold?", "What is here: gold?"),
    ],
)
def test_what_writers_put_around_a_request_is_taken_off(written: str, kept: str) -> None:
    assert cleaned(written) == kept


def test_likeness_by_hand() -> None:
    assert alike("one two three", "One, two: three!") == 1.0
    assert alike("one two three", "one two four") == 2 / 4  # of (start, one), (one, two), (two, three), (two, four)
    assert alike("one", "two") == 0.0
