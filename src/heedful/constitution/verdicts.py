"""From a judge's opinions to records: judgements with source "ai", which a consensus weighs like people's, and preferences."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from heedful.constitution.candidates import BAD, GOOD
from heedful.constitution.council import Settled
from heedful.judging.judge import Opinion, Pair
from heedful.judging.scored import PairJudge
from heedful.records import Completion, Judgement, Preference, Prompt, by_id

UNREADABLE = "no readable opinion"  # of a pair that is left out
EQUAL = 1e-12  # means of the same probabilities, added up in another order


@dataclass(frozen=True)
class Compared:
    """Two answers to a prompt and what the judge said: p(second better), by all principles and by each."""

    prompt: Prompt
    first: Completion
    second: Completion
    opinion: Opinion

    @property
    def by(self) -> Mapping[str, float]:
        """Each principle's probability that the second is better; of a judge without principles none."""
        return self.opinion.by if isinstance(self.opinion, Settled) else {}


@dataclass(frozen=True)
class Verdicts:
    """judgements: one a prompt over all its answers. by_principle: the same by each principle alone. left_out: pairs that make
    no preference, by reason. agreement: of contrasted pairs with an opinion, those where the judge prefers the answer under
    the good instruction, and all.
    """

    judgements: list[Judgement]
    by_principle: list[Judgement]
    preferences: list[Preference]
    left_out: dict[str, int] = field(default_factory=dict)
    agreement: tuple[int, int] = (0, 0)


def compared(
    judge: PairJudge,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    *,
    temper: Callable[[Opinion], Opinion] = lambda opinion: opinion,
) -> list[Compared]:
    """Every two answers to a prompt, judged. temper: fits an opinion's sureness."""
    known = by_id(prompts)
    own: dict[str, list[Completion]] = defaultdict(list)
    for completion in completions:
        own[completion.prompt_id].append(completion)
    pairs = [(known[id_], a, b) for id_, answers in own.items() for a, b in combinations(answers, 2)]
    opinions = judge([Pair(prompt.messages, a.text, b.text) for prompt, a, b in pairs])
    return [Compared(*pair, temper(opinion)) for pair, opinion in zip(pairs, opinions, strict=True)]


def verdicts(
    found: Sequence[Compared], *, labeler: str, criterion: str, near_tie: float, created_at: str, scorer: str = ""
) -> Verdicts:
    """The records that follow. near_tie: a pair whose probability is nearer to one half makes no preference.

    created_at: ISO 8601, of all judgements. scorer: kept in the records, as what was asked.
    """
    by_prompt: dict[str, list[Compared]] = defaultdict(list)
    for one in found:
        by_prompt[one.prompt.id].append(one)
    judgements, by_principle = [], []
    preferences: list[Preference] = []
    left_out: Counter[str] = Counter()
    for own in by_prompt.values():
        about: dict[str, Any] = {"labeler": labeler, "created_at": created_at, "near_tie": near_tie, "scorer": scorer}
        judgements += _judgement(own, [one.opinion.probability for one in own], criterion, **about)
        for name in dict.fromkeys(name for one in own for name in one.by):
            by_principle += _judgement(own, [one.by.get(name, math.nan) for one in own], name, **about)
        for one in own:
            p = one.opinion.probability
            if math.isnan(p):
                left_out[UNREADABLE] += 1
            elif abs(p - 0.5) < near_tie or p == 0.5:
                left_out["near tie"] += 1
            else:
                preferences.append(_preference(one, p, labeler, scorer))
    return Verdicts(judgements, by_principle, preferences, dict(left_out), _agreement(found))


def _preference(one: Compared, p: float, labeler: str, scorer: str) -> Preference:
    chosen, rejected = (one.second, one.first) if p > 0.5 else (one.first, one.second)
    return Preference(
        prompt_id=one.prompt.id,
        prompt=one.prompt.messages,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        probability=max(p, 1 - p),
        source="ai",
        judge=labeler,
        scorer=scorer,
        principles=sorted(one.by),
    )


def _judgement(
    own: Sequence[Compared], ps: Sequence[float], criterion: str, *, labeler: str, created_at: str, near_tie: float, scorer: str
) -> list[Judgement]:
    """A ranking by each answer's mean probability to beat the others; [] where no pair has an opinion.

    Answers whose means lie nearer to that of the first of a rank than one near tie sets them apart are level with it. Of two
    answers, `probability` says how likely the one ranked first is the better; of more, it is the mean over the pairs that the
    ranks decide.
    """
    beats: dict[str, list[float]] = defaultdict(list)
    pairs = []
    for one, p in zip(own, ps, strict=True):
        if not math.isnan(p):
            beats[one.first.id].append(1 - p)
            beats[one.second.id].append(p)
            pairs.append((one.first.id, one.second.id, p))
    if not pairs:
        return []
    means = {id_: math.fsum(row) / len(row) for id_, row in beats.items()}
    least = 2 * near_tie / max(len(row) for row in beats.values())
    ranks: dict[str, int] = {}
    rank, leader = 1, math.inf  # of the rank that is being filled
    for place, id_ in enumerate(sorted(means, key=lambda id_: (-means[id_], id_)), start=1):
        if not ranks or leader - means[id_] >= max(least, EQUAL):
            rank, leader = place, means[id_]
        ranks[id_] = rank
    decided = [p if ranks[b] < ranks[a] else 1 - p for a, b, p in pairs if ranks[a] != ranks[b]]
    shown = list(dict.fromkeys(id_ for one in own for id_ in (one.first.id, one.second.id) if id_ in ranks))
    key = hashlib.sha256(repr((labeler, scorer, own[0].prompt.id, criterion, sorted(ranks))).encode()).hexdigest()[:16]
    return [
        Judgement(
            id=f"ai-{key}",
            prompt_id=own[0].prompt.id,
            labeler=labeler,
            source="ai",
            criterion=criterion,
            ranks=ranks,
            shown_order=tuple(shown),
            created_at=created_at,
            probability=math.fsum(decided) / len(decided) if decided else 0.5,
            scorer=scorer,
        )
    ]


def _agreement(found: Sequence[Compared]) -> tuple[int, int]:
    agreed = total = 0
    for one in found:
        sides = [one_.model_extra or {} for one_ in (one.first, one.second)]
        marks = [side.get("instruction") for side in sides]
        same = sides[0].get("contrast") == sides[1].get("contrast")
        if sorted(filter(None, marks)) == [BAD, GOOD] and same and not math.isnan(one.opinion.probability):
            total += 1
            agreed += (one.opinion.probability > 0.5) == (marks[1] == GOOD)
    return agreed, total
