"""What passes between heedful and a reward from outside: conversations out, one finite number an answer back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from heedful.errors import RewardError
from heedful.models.reward import Answer

SHOWN = 80  # characters of what came back, in a message


def conversations(answers: Sequence[Answer]) -> list[list[dict[str, str]]]:
    """The conversation before each answer, as plain dictionaries."""
    return [[{"role": message.role, "content": message.content} for message in answer.messages] for answer in answers]


def one_number_each(found: Any, answers: Sequence[Answer], who: str) -> list[float]:
    """The rewards as floats, or a RewardError: not a list, another length, no number, not finite. who: begins the message."""
    found = found.tolist() if hasattr(found, "tolist") else found
    if isinstance(found, str | bytes | dict) or not isinstance(found, Sequence):
        raise RewardError(f"{who} gave {_short(found)}; expected a list of {len(answers)} numbers, one for each answer")
    if len(found) != len(answers):
        raise RewardError(f"{who} gave {len(found)} rewards for {len(answers)} answers; expected one for each, in order")
    rewards = []
    for value, answer in zip(found, answers, strict=True):
        value = value.item() if hasattr(value, "item") else value
        if not _is_number(value):
            raise RewardError(f"{who} gave {_short(value)} for {answer.shown()}; expected a finite number")
        rewards.append(float(value))
    return rewards


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
