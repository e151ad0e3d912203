"""What a labeler's answers show by themselves: sets judged twice, place on the page, time taken; and who agrees with whom.

Nothing here asks who is right. One kind of finding a function, by labeler; a labeler without data for it is not in the answer.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import median

from scipy import stats

from heedful.feedback.consensus import latest, made_at
from heedful.feedback.kendall import kendall_s, kendall_variance, num_decided, sign
from heedful.records import Completion, Judgement

MIN_JUDGEMENTS = 8  # for the tests of position and time: with fewer neither the normal curve nor "more than half" means much
# Adults read 238 words of English a minute, 4 a second (Brysbaert, "How many words do we read per minute?", Journal of Memory
# and Language 109, 2019). Nearly four times that is skimming at best. The round number is a convention of ours, no finding.
MAX_WORDS_PER_SECOND = 15.0
SHORTEST_S = 0.1  # clocks are read to a tenth of a second, and 0 has no logarithm


@dataclass(frozen=True)
class Repeats:
    """Of num_pairs decided in the first and in the last judgement of a set, the share decided alike; low, high: Wilson, 95%."""

    num_pairs: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Position:
    """Ranks against the order shown. lean: share of decided pairs ranked as shown, less the share ranked the other way round.

    z: Kendall's S summed over judgements, in standard deviations; p: two-sided; q: p after Benjamini-Hochberg over labelers.
    """

    num_judgements: int
    lean: float
    z: float
    p: float
    q: float


@dataclass(frozen=True)
class Speed:
    """Time a judgement. ratio: to the others' on the same prompts. too_fast_share: of judgements above MAX_WORDS_PER_SECOND.

    ratio is None where nobody else was timed on a prompt, too_fast_share where numbers of words are not given.
    """

    num_judgements: int
    median_s: float
    ratio: float | None
    too_fast_share: float | None

    @property
    def too_fast(self) -> bool:
        """Too fast to have read: more than half of MIN_JUDGEMENTS or more."""
        return self.num_judgements >= MIN_JUDGEMENTS and (self.too_fast_share or 0.0) > 0.5


@dataclass(frozen=True)
class Agreement:
    """Of num_pairs decided by both labelers, the share that they order alike."""

    labelers: tuple[str, str]
    num_pairs: int
    share: float


def _decided_alike(first: Mapping[str, int], second: Mapping[str, int]) -> tuple[int, int]:
    """Of the pairs that both rankings decide, how many they order alike, and how many there are."""
    shared = [(first[id_], second[id_]) for id_ in sorted(set(first) & set(second))]
    signs = [sign(a - b) * sign(x - y) for (a, x), (b, y) in combinations(shared, 2)]
    return signs.count(1), len(signs) - signs.count(0)


def self_consistency(judgements: Iterable[Judgement]) -> dict[str, Repeats]:
    """Agreement of labelers with themselves, from the first and the last judgement of each set that they judged repeatedly.

    Who meant to correct an answer counts as inconsistent: the records do not say why somebody judged again. Wilson, "Probable
    inference", JASA 22 (1927). Pairs of one ranking hang together, so the interval is a little too narrow.
    """
    made: dict[tuple[str, str], list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        made[judgement.labeler, judgement.prompt_id].append(judgement)
    counts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for (labeler, _), found in made.items():
        if len(found) > 1:
            first, *_, last = sorted(found, key=lambda judgement: (made_at(judgement), judgement.id))
            counts[labeler].append(_decided_alike(first.ranks, last.ranks))
    totals = {labeler: [sum(column) for column in zip(*rows, strict=True)] for labeler, rows in sorted(counts.items())}
    return {labeler: _repeats(alike, num_pairs) for labeler, (alike, num_pairs) in totals.items() if num_pairs}


def _repeats(alike: int, num_pairs: int) -> Repeats:
    interval = stats.binomtest(alike, num_pairs).proportion_ci(0.95, method="wilson")
    return Repeats(num_pairs, alike / num_pairs, float(interval.low), float(interval.high))


def position(judgements: Iterable[Judgement]) -> dict[str, Position]:
    """Whether ranks follow the place on the page, for labelers with MIN_JUDGEMENTS or more that say something about it.

    It takes `shown_order`, drawn at random for each judgement. Then each order of what somebody ranked is equally likely beside
    the ranks, Kendall's S of the two has mean 0 and the exact variance of `kendall_variance`, and their sum over judgements
    is close to normal. A default order that nobody touched has S at its greatest every time.
    """
    sums: dict[str, list[tuple[int, float, int]]] = defaultdict(list)
    for rows in latest(judgements).values():
        for own in rows:
            ranks = [own.ranks[id_] for id_ in own.shown_order if id_ in own.ranks]
            order = range(len(ranks))
            if decided_here := num_decided(ranks):
                sums[own.labeler].append((kendall_s(order, ranks), kendall_variance(order, ranks), decided_here))
    found = {}
    for labeler, own_sums in sorted(sums.items()):
        if len(own_sums) >= MIN_JUDGEMENTS:
            s_each, variances, decided = zip(*own_sums, strict=True)
            z = sum(s_each) / math.sqrt(math.fsum(variances))
            p = min(1.0, 2 * float(stats.norm.sf(abs(z))))
            found[labeler] = Position(len(own_sums), sum(s_each) / sum(decided), z, p, p)
    corrected = stats.false_discovery_control([entry.p for entry in found.values()]) if found else []
    return {labeler: replace(entry, q=float(q)) for (labeler, entry), q in zip(found.items(), corrected, strict=True)}


def speed(judgements: Iterable[Judgement], words: Mapping[str, int] | None = None) -> dict[str, Speed]:
    """Times of labelers, from judgements with `seconds`. words: of each completion, as `words_of` counts them.

    Texts differ in length, so a labeler is compared on each prompt with the median of the others there, in logarithms; the
    ratio is the median over prompts of what comes out. Nobody's pause for coffee moves a median.
    """
    own: dict[str, list[float]] = defaultdict(list)
    differences: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    for rows in latest(judgements).values():
        timed = [(judgement, max(judgement.seconds, SHORTEST_S)) for judgement in rows if judgement.seconds is not None]
        for judgement, seconds in timed:
            own[judgement.labeler].append(seconds)
            others = [math.log(other) for made, other in timed if made is not judgement]
            if others:
                differences[judgement.labeler].append(math.log(seconds) - median(others))
            if words is not None:
                shown = sum(words[id_] for id_ in (*judgement.ranks, *judgement.flagged))
                rates[judgement.labeler].append(shown / seconds)
    found = {}
    for labeler, seconds_taken in sorted(own.items()):
        compared, read = differences[labeler], rates[labeler]
        found[labeler] = Speed(
            num_judgements=len(seconds_taken),
            median_s=median(seconds_taken),
            ratio=math.exp(median(compared)) if compared else None,
            too_fast_share=sum(rate > MAX_WORDS_PER_SECOND for rate in read) / len(read) if read else None,
        )
    return found


def words_of(completions: Iterable[Completion]) -> dict[str, int]:
    """Words of each completion's text between blanks; 0 for a copy of another one of its prompt, as pages show it once.

    A language without blanks has few such words, and nobody is called too fast for it.
    """
    found: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    for completion in sorted(completions, key=lambda completion: completion.id):
        text = (completion.prompt_id, completion.text.strip())
        found[completion.id] = 0 if text in seen else len(completion.text.split())
        seen.add(text)
    return found


def pairwise_agreement(judgements: Iterable[Judgement]) -> list[Agreement]:
    """Every two labelers who decided a pair in common, sorted by their names."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for rows in latest(judgements).values():
        for one, other in combinations(rows, 2):
            alike, num_pairs = _decided_alike(one.ranks, other.ranks)
            if num_pairs:
                total = counts[one.labeler, other.labeler]
                total[0] += alike
                total[1] += num_pairs
    return [Agreement(names, num_pairs, alike / num_pairs) for names, (alike, num_pairs) in sorted(counts.items())]
