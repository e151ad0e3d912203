"""Phrases that a policy has come to repeat: counted by hand on small sets of answers."""

from __future__ import annotations

import random

import pytest

from heedful.evaluation.phrases import Phrase, repeated_phrases

PLAIN = [f"answer {i} says something of its own about topic {i}" for i in range(10)]


def said_by(count: int, phrase: str) -> list[str]:
    """Ten answers, `count` of which hold the phrase among words of their own."""
    return [f"here{i} we{i} go{i} {phrase} and{i} so{i} on{i}" if i < count else PLAIN[i] for i in range(10)]


def test_a_phrase_that_appeared_is_named_with_both_shares() -> None:
    assert repeated_phrases(PLAIN, said_by(4, "Most awesome, most incredible")) == [
        Phrase("most awesome most incredible", 0.0, 0.4)
    ]


def test_a_fifth_of_the_answers_is_not_yet_a_habit() -> None:
    assert repeated_phrases(PLAIN, said_by(2, "most awesome, most incredible")) == []
    assert len(repeated_phrases(PLAIN, said_by(3, "most awesome, most incredible"))) == 1


@pytest.mark.parametrize(("before", "named"), [(1, True), (2, False)])
def test_what_the_base_says_as_well_counts_only_at_five_times(before: int, named: bool) -> None:
    phrase = "i am happy to help"
    found = repeated_phrases(said_by(before, phrase), said_by(9, phrase))
    assert bool(found) is named
    if named:
        assert found == [Phrase(phrase, 0.1, 0.9)]


def test_a_long_phrase_is_told_whole_and_once() -> None:
    phrase = "i would be so very glad to help you with that today"
    assert repeated_phrases(PLAIN, said_by(6, phrase)) == [Phrase(phrase, 0.0, 0.6)]


def test_an_answer_counts_once_however_often_it_repeats_itself() -> None:
    looping = ["great great great great great great", *PLAIN[1:]]
    assert repeated_phrases(PLAIN, looping) == []


def test_a_loop_of_one_word_ends() -> None:
    assert repeated_phrases(PLAIN, ["great " * 40] * 10) == [Phrase("great great great great", 0.0, 1.0)]


def test_a_loop_of_several_words_ends() -> None:
    (found,) = repeated_phrases(PLAIN, ["no yes maybe so " * 20] * 10)
    assert found.after == 1.0
    assert "no yes maybe so" in found.phrase


def test_case_and_punctuation_make_no_difference() -> None:
    spellings = ["I'm glad, you ask!", "i’m glad you ask", "I'm GLAD. You ask?", "(I'm glad) - you: ask"]
    assert repeated_phrases(PLAIN, spellings) == [Phrase("i'm glad you ask", 0.0, 1.0)]


def test_the_order_of_answers_makes_no_difference() -> None:
    after = said_by(5, "thank you for asking me this")
    shuffled = after[:]
    random.Random(0).shuffle(shuffled)
    assert repeated_phrases(PLAIN, after) == repeated_phrases(PLAIN, shuffled)


@pytest.mark.parametrize("sides", [([], PLAIN), (PLAIN, []), (PLAIN, [""]), (PLAIN, ["a lone answer of five words"])])
def test_without_answers_to_compare_nothing_is_named(sides: tuple[list[str], list[str]]) -> None:
    assert repeated_phrases(*sides) == []


def test_at_most_three_are_named() -> None:
    phrases = ["aa bb cc dd", "ee ff gg hh", "ii jj kk ll", "mm nn oo pp"]
    assert len(repeated_phrases(PLAIN, [f" {x}{i} ".join(phrases) for i, x in enumerate("abcdefghij")])) == 3


def test_what_joins_two_phrases_is_not_told_again() -> None:
    first, second = "sorry for any misunderstanding", "here to help you now"
    after = [f"{first} {second}" if i < 6 else f"{first} well{i}" if i < 8 else f"well{i} {second}" for i in range(10)]
    assert repeated_phrases(PLAIN, after) == [Phrase(second, 0.0, 0.8), Phrase(first, 0.0, 0.8)]
