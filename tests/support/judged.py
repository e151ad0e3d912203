"""Pairs that a small model can learn: the chosen completions are polite, the rejected ones are not."""

from __future__ import annotations

import random
from pathlib import Path

from heedful.data.bundled import load_bundled
from heedful.records import Preference
from heedful.store import write_jsonl

GOOD = ("Of course, with pleasure.", "Gladly, here it is.", "Sure, let me help you.", "Thank you for asking.")
BAD = ("No way, go away.", "That is stupid.", "Leave me alone.", "I do not care at all.")


def write_pairs(path: Path, count: int, seed: int = 0) -> Path:
    """`count` pairs, each of another bundled prompt; wording drawn at random, so that lengths tell nothing."""
    draw = random.Random(seed)
    pairs = [
        Preference(
            prompt_id=prompt.id,
            prompt=prompt.messages,
            chosen=draw.choice(GOOD),
            rejected=draw.choice(BAD),
            probability=1.0,
            judges=1,
            source="simulated",
        )
        for prompt in load_bundled()[:count]
    ]
    write_jsonl(path, pairs)
    return path
