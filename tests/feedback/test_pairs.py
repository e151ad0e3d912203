"""Pairs from a settled ranking: which, in what order, and how sure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.errors import DataError
from heedful.feedback.consensus import Support, consensus
from heedful.feedback.pairs import preferences, probability
from heedful.records import Completion, Judgement, Message, Preference, Prompt, Sampling

PROMPT = Prompt(id="p", messages=(Message(role="user", content="My house is too hot"),))
TEXTS = {"c1": "Move to Norway.", "c2": "Open the windows at night.", "c3": "Hot hot.", "c4": ""}


def completions(texts: Mapping[str, str] = TEXTS) -> list[Completion]:
    sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=40)
    return [
        Completion(id=id_, prompt_id="p", text=text, model="m", finish="stop", sampling=sampling) for id_, text in texts.items()
    ]


def judge(labeler: str, ranks: Mapping[str, int], flagged: tuple[str, ...] = (), source: Any = "human") -> Judgement:
    return Judgement(
        id=f"p/{labeler}",
        prompt_id="p",
        labeler=labeler,
        source=source,
        criterion="helpful",
        ranks=dict(ranks),
        flagged=flagged,
        created_at="2026-01-01T00:00:00+00:00",
    )


def pairs(*judgements: Judgement, texts: Mapping[str, str] = TEXTS, **options: Any) -> list[Preference]:
    return preferences([PROMPT], completions(texts), judgements, consensus(judgements), **options)


def test_three_ranked_completions_give_three_pairs_the_better_first() -> None:
    found = pairs(judge("x", {"c1": 2, "c2": 1, "c3": 3}))
    assert [(pair.chosen_id, pair.rejected_id, pair.margin) for pair in found] == [
        ("c2", "c1", 1.0),
        ("c2", "c3", 2.0),
        ("c1", "c3", 1.0),
    ]
    assert (found[0].chosen, found[0].rejected) == ("Open the windows at night.", "Move to Norway.")
    assert all(pair.prompt == PROMPT.messages and pair.judges == 1 and pair.source == "human" for pair in found)
    assert all(pair.probability == pytest.approx(2 / 3) for pair in found)  # one vote, and one more on either side


def test_my_house_is_too_hot() -> None:
    """The textbook's example: three answers ranked 2, 1, 3."""
    found = pairs(judge("x", {"c1": 2, "c2": 1, "c3": 3}))
    assert [pair.chosen_id for pair in found].count("c2") == 2
    assert [pair.rejected_id for pair in found].count("c3") == 2
    assert "c2" not in [pair.rejected_id for pair in found]
    assert all(pair.prompt[0].content == "My house is too hot" for pair in found)


def test_four_ranked_completions_give_six_pairs() -> None:
    found = pairs(judge("x", {"c1": 4, "c2": 3, "c3": 2, "c4": 1}))
    assert [str(p.chosen_id)[1] + str(p.rejected_id)[1] for p in found] == ["43", "42", "41", "32", "31", "21"]
    assert [p.margin for p in found] == [1, 2, 3, 1, 2, 1]


def test_ties_are_left_out_unless_asked_for() -> None:
    judgement = judge("x", {"c2": 1, "c1": 1, "c3": 2})
    assert [(p.chosen_id, p.rejected_id) for p in pairs(judgement)] == [("c1", "c3"), ("c2", "c3")]
    tied = pairs(judgement, include_ties=True)[0]
    assert (tied.chosen_id, tied.rejected_id, tied.probability, tied.margin) == ("c1", "c2", 0.5, 0.0)


@pytest.mark.parametrize(
    ("support", "first", "expected"),
    [
        (Support(over=3.0), True, 4 / 5),
        (Support(under=3.0), False, 4 / 5),
        (Support(over=3.0, under=1.0), True, 4 / 6),
        (Support(over=1.0, tie=2.0), True, 3 / 5),
        (Support(over=0.5, under=0.25), True, 1.5 / 2.75),
        (Support(over=1.0, under=2.0), True, 0.5),  # the whole ranking overruled the pair's own votes
        (Support(), True, 0.5),
    ],
)
def test_probability_by_hand(support: Support, first: bool, expected: float) -> None:
    assert probability(support, chosen_is_first=first) == pytest.approx(expected)


def test_probability_follows_the_votes_whichever_id_is_chosen() -> None:
    for up, down in (("c1", "c2"), ("c2", "c1")):
        ranks = {up: 1, down: 2}
        (found,) = pairs(judge("x", ranks), judge("y", ranks), judge("z", {up: 2, down: 1}))
        assert (found.chosen_id, found.judges) == (up, 3)
        assert found.probability == pytest.approx(3 / 5)


def test_a_flagged_completion_enters_no_pair() -> None:
    found = pairs(judge("x", {"c1": 1, "c3": 2}, ("c2",)), judge("y", {"c1": 1}, ("c2", "c3")))
    assert [(pair.chosen_id, pair.rejected_id, pair.judges) for pair in found] == [("c1", "c3", 1)]


def test_all_flagged_give_no_pair() -> None:
    assert pairs(judge("x", {}, ("c1", "c2")), include_ties=True) == []


def test_equal_texts_give_no_pair() -> None:
    texts = {"c1": "Open a window.", "c2": "Open a window.", "c3": "No."}
    found = pairs(judge("x", {"c1": 1, "c2": 2, "c3": 3}), texts=texts)
    assert [(pair.chosen_id, pair.rejected_id) for pair in found] == [("c1", "c3"), ("c2", "c3")]


def test_an_empty_text_that_nobody_flagged_still_pairs() -> None:
    (found,) = pairs(judge("x", {"c1": 1, "c4": 2}))
    assert (found.chosen, found.rejected) == ("Move to Norway.", "")


def test_completions_that_nobody_compared_make_no_pair() -> None:
    # c1 over c2 over c3, but c1 and c3 never met.
    found = pairs(judge("x", {"c1": 1, "c2": 2}), judge("y", {"c2": 1, "c3": 2}))
    assert [(pair.chosen_id, pair.rejected_id) for pair in found] == [("c1", "c2"), ("c2", "c3")]


def test_sources_are_mixed_where_they_differ() -> None:
    ranks = {"c1": 1, "c2": 2}
    assert pairs(judge("x", ranks, source="ai"), judge("y", ranks, source="human"))[0].source == "mixed"
    assert pairs(judge("x", ranks, source="simulated"), judge("y", ranks, source="simulated"))[0].source == "simulated"


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(DataError, match=r"judgement 'p/x' names completion 'c9'"):
        pairs(judge("x", {"c1": 1, "c9": 2}))
    judgements = [judge("x", {"c1": 1, "c2": 2})]
    with pytest.raises(DataError, match=r"judgement 'p/x' names prompt 'p'"):
        preferences([], completions(), judgements, consensus(judgements))


def test_a_consensus_of_other_judgements_is_refused() -> None:
    stale = consensus([judge("x", {"c1": 1, "c3": 2})])
    with pytest.raises(DataError, match=r"prompt 'p' does not come from these judgements \(none names completion 'c3'\)"):
        preferences([PROMPT], completions(), [judge("x", {"c1": 1, "c2": 2})], stale)
    with pytest.raises(DataError, match="does not come from these judgements"):
        preferences([PROMPT], completions(), [], stale)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.fixed_dictionaries({id_: st.integers(1, 4) for id_ in TEXTS}), min_size=1, max_size=5), st.booleans())
def test_every_pair_once_and_never_against_the_consensus(rankings: list[dict[str, int]], include_ties: bool) -> None:
    judgements = [judge(f"l{i}", ranks) for i, ranks in enumerate(rankings)]
    (settled,) = consensus(judgements)
    found = preferences([PROMPT], completions(), judgements, [settled], include_ties=include_ties)
    expected = {
        frozenset(pair) for pair in combinations(TEXTS, 2) if include_ties or settled.ranks[pair[0]] != settled.ranks[pair[1]]
    }
    assert len(found) == len(expected)
    assert {frozenset((str(p.chosen_id), str(p.rejected_id))) for p in found} == expected
    for pair in found:
        assert settled.ranks[str(pair.chosen_id)] <= settled.ranks[str(pair.rejected_id)]
        assert 0.5 <= pair.probability < 1
        assert pair.judges == len(judgements)
