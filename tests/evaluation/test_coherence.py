"""Incoherent answers: constructed cases of each kind, and ordinary texts that are none."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from heedful.data.formats import read_preferences
from heedful.evaluation.coherence import LEAST_LOGPROB, incoherence, packed_share

HH = Path(__file__).parents[3] / "shared" / "data" / "hh" / "harmless.jsonl.gz"
LONG_LOOP = " ".join(f"You should go to shop number {n} and ask the man there for help with your plan." for n in range(9)) * 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("!!! ... 123", "no words"),
        ("a" * 60, "no words"),
        ("I can help. " * 20, "loop"),
        ("hahaha" * 40, "loop"),
        (LONG_LOOP, "loop"),
        ("No, no, no, no.", None),
        ("Open a window at night and let a fan run until the morning comes again.", None),
        ("I'm sorry, but I can't help with that.", None),
    ],
)
def test_loops_and_emptiness_are_seen_in_the_text(text: str, reason: str | None) -> None:
    assert incoherence(text) == reason


def test_word_salad_is_what_the_reference_finds_unlikely() -> None:
    salad = "window the plan fan of glue seven until quickly"
    assert incoherence(salad) is None, "without a reference nobody can tell"
    assert incoherence(salad, mean_logprob=LEAST_LOGPROB - 0.1, num_tokens=9) == "word salad"
    assert incoherence(salad, mean_logprob=LEAST_LOGPROB + 0.1, num_tokens=9) is None
    assert incoherence("Zebra", mean_logprob=-12.0, num_tokens=2) is None, "one unlikely word is an answer"


def test_how_small_a_text_packs() -> None:
    assert packed_share("short") == 1.0
    assert packed_share("na" * 200) < 0.1
    letters = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz ", k=400))
    assert packed_share(letters) > 0.6


@pytest.mark.skipif(not HH.exists(), reason="../shared/data is absent")
def test_what_people_wrote_packs_no_smaller() -> None:
    pairs = read_preferences(HH)
    wrong = [pair.chosen for pair in pairs if incoherence(pair.chosen) == "loop"]
    assert len(wrong) <= 0.005 * len(pairs), wrong[:3]
