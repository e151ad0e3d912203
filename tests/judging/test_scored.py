"""Scores as judges of pairs: the difference decides, the order does not, and nothing is weighed twice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from heedful.judging.calls import Calls
from heedful.judging.judge import Opinion, Pair
from heedful.judging.scored import JournaledScore, Scored, Texts, log_odds, sharpened
from heedful.records import Message

ASKED = (Message(role="user", content="So?"),)


def words(texts: Texts) -> list[float]:
    """The number of words; nobody can read an X."""
    return [math.nan if text == "X" else float(len(text.split())) for _, text in texts]


def test_the_difference_of_the_scores_is_the_log_odds() -> None:
    longer, shorter, same = Scored("words", words)(
        [Pair(ASKED, "a", "a b c"), Pair(ASKED, "a b c", "a"), Pair(ASKED, "a", "b")]
    )
    assert longer.probability == pytest.approx(1 / (1 + math.exp(-2)))
    assert shorter.probability == pytest.approx(1 - longer.probability)
    assert (longer.as_a, longer.consistent, same.score) == (longer.as_b, True, 0.5)
    (half,) = Scored("words", words, unit=2.0)([Pair(ASKED, "a", "a b c")])
    assert log_odds(half.probability) == pytest.approx(1)


def test_what_cannot_be_scored_is_no_tie() -> None:
    (opinion,) = Scored("words", words)([Pair(ASKED, "a", "X")])
    assert not opinion.valid
    assert opinion.score != 0.5


def test_a_slope_multiplies_the_log_odds_of_both_orders() -> None:
    found = sharpened(Opinion(0.8, 0.4), 0.5)
    assert (log_odds(found.as_b), log_odds(found.as_a)) == (
        pytest.approx(log_odds(0.8) / 2),
        pytest.approx(log_odds(0.4) / 2),
    )
    assert sharpened(Opinion(1.0, 0.0), 0.5) == Opinion(1.0, 0.0)


def test_a_text_in_several_pairs_is_scored_once() -> None:
    asked: list[str] = []

    def score(texts: Texts) -> list[float]:
        asked.extend(text for _, text in texts)
        return words(texts)

    Scored("words", score)([Pair(ASKED, "a", "b"), Pair(ASKED, "b", "c"), Pair(ASKED, "c", "a")])
    assert asked == ["a", "b", "c"]


def test_the_journal_keeps_numbers_by_what_they_depend_on(tmp_path: Path) -> None:
    asked: list[str] = []

    def score(texts: Texts) -> list[float]:
        asked.extend(text for _, text in texts)
        return words(texts)

    told: list[tuple[int, int]] = []

    def opened(identity: str) -> JournaledScore:
        return JournaledScore(score, identity, Calls(tmp_path / "calls.jsonl"), lambda done, total: told.append((done, total)))

    texts = [(ASKED, "a"), (ASKED, "X"), (ASKED, "a b")]
    first = opened("m")(texts)
    assert (first[0], first[2]) == (1.0, 2.0)
    assert math.isnan(first[1])
    assert told == [(3, 3)]
    assert opened("m")([*texts, (ASKED, "c")])[3] == 1.0
    assert asked == ["a", "X", "a b", "X", "c"], "what could not be had is asked for again"
    opened("other")(texts[:1])
    assert asked[-1] == "a"
