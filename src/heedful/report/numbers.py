"""Numbers as a reader sees them. A value that is absent, NaN or infinite is a dash, never a zero."""

from __future__ import annotations

import math
from typing import Any, TypeGuard


def finite(value: Any) -> TypeGuard[float]:
    """Whether there is a number to show or plot."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def number(value: Any, digits: int = 2) -> str:
    """ "0.61", or a dash."""
    # Adding 0.0 turns the -0.0 that rounding leaves into 0.0: "-0" reads like a loss.
    return f"{round(value, digits) + 0.0:.{digits}f}" if finite(value) else "-"


def signed(value: Any, digits: int = 2) -> str:
    """ "+0.61", or a dash."""
    return f"{round(value, digits) + 0.0:+.{digits}f}" if finite(value) else "-"


def bounds(interval: dict[str, Any], digits: int = 2, *, scale: float = 1.0, sign: bool = False) -> str:
    """ " [0.55, 0.67]" with a leading space; nothing where an interval could not be estimated."""
    low, high = interval.get("low"), interval.get("high")
    if not (finite(low) and finite(high)):
        return ""
    shown = signed if sign else number
    return f" [{shown(scale * low, digits)}, {shown(scale * high, digits)}]"


def percent(interval: dict[str, Any], digits: int = 1) -> str:
    """ "61.2% [55.0, 67.1]"."""
    estimate = interval.get("estimate")
    return f"{number(100 * estimate, digits)}%{bounds(interval, digits, scale=100)}" if finite(estimate) else "-"


def duration(seconds: Any) -> str:
    """ "under 1 s", "37 s", "6 min 14 s", "2 h 5 min"."""
    if not finite(seconds):
        return "-"
    if seconds < 1:
        return "under 1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listing(names: list[str]) -> str:
    """ "a, b and c"."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def plural(count: int, noun: str) -> str:
    """ "1 step", "2,000 steps"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


MAX_SHOWN = 6000  # characters of one answer


def clip(text: str) -> str:
    """The beginning of a text that is too long for a page, and how much is left out."""
    more = len(text) - MAX_SHOWN
    return text if more <= 0 else f"{text[:MAX_SHOWN]} … ({more:,} more characters)"


def sound(text: str) -> str:
    """JSON can hold half of a surrogate pair, UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
