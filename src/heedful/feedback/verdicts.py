"""What is known of one labeler in a few words, with the figures that led to them. A person decides what follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scipy import stats

from heedful.feedback.clickers import Clicker
from heedful.feedback.habits import MAX_WORDS_PER_SECOND, MIN_JUDGEMENTS, Position, Repeats, Speed
from heedful.feedback.leave_one_out import LEVEL, LeftOut

TOO_FEW, DIFFERENT, RANDOM, LESS, FINE = (
    "too few to tell",
    "consistent but different view",
    "answers like random clicks",
    "agrees less than the others",
    "agrees with the others",
)
INVERTED_LEVEL = 0.001  # one random clicker in a thousand is taken for somebody who turns the scale round
CONSISTENT = 0.6  # a coin agrees with itself on half of the pairs; the lower end of the interval lies above this
FOLLOWS_ORDER = 0.5  # three pairs of four as shown, or against it: whoever does that is consistent for no good reason
QUICK = 1 / 3  # of the others' time: worth a look, and no more than that


@dataclass(frozen=True)
class Evidence:
    """What the tests found; None where one could not be made."""

    others: LeftOut
    clicker: Clicker | None = None
    repeats: Repeats | None = None
    position: Position | None = None
    speed: Speed | None = None

    @property
    def clicks(self) -> bool:
        """Whether random clicks explain the answers: by the random-click test where there are votes enough for it.

        With fewer, and for who never decides a pair, of which that test makes nothing: suspect, and z not clearly above 0.
        """
        if self.clicker is not None and self.others.z is not None:
            return self.clicker.suspect
        return self.others.suspect and (self.others.z is None or float(stats.norm.sf(self.others.z)) > LEVEL)

    @property
    def inverted(self) -> bool:
        """Further below chance than random clicks come."""
        return self.others.z is not None and float(stats.norm.cdf(self.others.z)) < INVERTED_LEVEL

    @property
    def consistent(self) -> bool:
        """Clearly agrees with itself on sets judged twice, and not just by following the order on the page."""
        follows = self.position is not None and self.position.q < LEVEL and abs(self.position.lean) > FOLLOWS_ORDER
        return self.repeats is not None and self.repeats.low > CONSISTENT and not follows


def verdict(found: Evidence) -> tuple[str, tuple[str, ...]]:
    """The verdict, and its reasons in words. The first one that holds:

    too few to tell: no q. consistent but different view: inverted, or consistent in spite of looking like clicks or agreeing
    less. answers like random clicks. agrees less than the others: suspect. agrees with the others.
    """
    said, why = _said(found)
    return said, (why, *_habits(found))


def _said(found: Evidence) -> tuple[str, str]:
    if found.others.q is None:
        return TOO_FEW, f"{found.others.num_judgements} judged, too few of them on prompts that two others put in order"
    agrees = f"agrees with the others on {_percent(found.others.agreement)} of pairs"
    if found.inverted:
        return DIFFERENT, f"{agrees}, less than random clicks would (z {found.others.z:.1f})"
    if (found.others.suspect or found.clicks) and found.consistent:
        return DIFFERENT, f"{agrees}, yet clearly with itself"
    if found.clicks and found.others.z is None:
        return RANDOM, "decides no pair where the others see an order"
    if found.clicks and found.clicker is not None:
        chance = _chance(found.clicker.probability)
        return RANDOM, f"{agrees}; random clicks explain the {found.clicker.num_votes} votes with {chance}"
    if found.clicks:
        return RANDOM, f"{agrees}, no more than random clicks would (z {found.others.z:.1f})"
    if found.others.suspect:
        return LESS, f"{agrees}, less than they do (q {_small(found.others.q)})"
    return FINE, agrees


def _habits(found: Evidence) -> Iterator[str]:
    """What else is worth saying, whatever the verdict."""
    if found.repeats is not None:
        own = found.repeats
        yield (
            f"agrees with itself on {_percent(own.share)} of {own.num_pairs} repeated pairs "
            f"(95% {_percent(own.low)} to {_percent(own.high)})"
        )
    if found.position is not None and found.position.q < LEVEL:
        way = "as shown" if found.position.lean > 0 else "against the order shown"
        yield f"ranks {_percent((1 + abs(found.position.lean)) / 2)} of pairs {way} (q {_small(found.position.q)})"
    speed = found.speed
    if speed is not None and speed.too_fast:
        yield (
            f"{_percent(speed.too_fast_share)} of judgements too fast to have read: more than {MAX_WORDS_PER_SECOND:.0f} words "
            f"a second (median {speed.median_s:.1f} s)"
        )
    elif speed is not None and speed.num_judgements >= MIN_JUDGEMENTS and (speed.ratio or 1.0) < QUICK:
        yield f"takes {_percent(speed.ratio)} of the others' time on the same prompts (median {speed.median_s:.1f} s)"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.0%}"


def _small(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"


def _chance(probability: float) -> str:
    return f"probability {probability:.2f}" if probability < 0.995 else "probability above 0.99"
