"""What a project's judgements come to so far, and who agrees with whom: the functions of `heedful consensus` on its records."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.pool import AsyncResult
from typing import Any

from django.core.cache import cache
from django.db.models import Count, Max
from django.utils import timezone

from heedful.evaluation.statistics import Interval, mean_interval
from heedful.feedback.consensus import latest
from heedful.feedback.habits import words_of
from heedful.feedback.overview import Overview, overview, with_the_bar
from heedful.records import Completion, Judgement, LabelerQuality
from heedful.web.labelling import background, models
from heedful.web.labelling.files import judgements_of
from heedful.web.labelling.judging import gold_score
from heedful.web.labelling.models import Mode, Project
from heedful.web.labelling.sets import FIRST, SECOND, names_of_sides

KEPT_S = 24 * 3600
LOST_S = 1_800  # after which a computation is begun anew: its process was killed


@dataclass(frozen=True)
class Versus:
    """Two models held against each other by people. rate: share of prompts that go to the second, a tie being half of one.

    counts: of prompts that went to the second, to neither and to the first by most of those who judged them; identical ones
    among neither.
    """

    first: str
    second: str
    rate: Interval
    wins: int
    ties: int
    losses: int
    num_identical: int
    num_judgements: int

    @property
    def percent(self) -> int:
        return round(100 * self.rate.estimate)

    @property
    def low(self) -> int | None:
        return None if self.rate.low is None else round(100 * self.rate.low)

    @property
    def high(self) -> int | None:
        return None if self.rate.high is None else round(100 * self.rate.high)


@dataclass(frozen=True)
class Quality:
    """gold: by labeler, pairs of gold sets that are in the known order, and of how many.

    num_clear: of num_settled prompts (in thumbs mode completions), those with one best order.
    """

    agreement: dict[str, Any]
    labelers: list[LabelerQuality]
    gold: dict[str, tuple[int, int]]
    num_clear: int
    num_settled: int
    versus: Versus | None


@dataclass(frozen=True)
class Shown:
    """What there is to show now. at: when it was true. pending: it has changed since, and is being computed anew."""

    quality: Quality | None
    at: datetime | None
    pending: bool


@dataclass(frozen=True)
class _Job:
    """A computation that was begun. state: of the judgements it is about."""

    state: str
    at: datetime
    overview: AsyncResult[Overview]
    gold: dict[str, tuple[int, int]]
    versus: Versus | None

    def quality(self) -> Quality:
        """Waits for it. Raises HeedfulError."""
        found = self.overview.get()
        return Quality(**vars(found), gold=self.gold, versus=self.versus)


_jobs: dict[int, _Job] = {}  # by project: one at a time, so that many who look do not compute the same
_lock = threading.Lock()


def shown(project: Project, patience_s: float) -> Shown:
    """Of the judgements there are now, if that takes no longer than patience_s, or else what was computed last.

    Judgements that come while it is computed are in the next one: whoever asks is not kept waiting by labelers who go on.
    Raises HeedfulError.
    """
    state, asked = _state(project), timezone.now()
    if state is None:
        return Shown(None, None, pending=False)
    until = time.monotonic() + patience_s
    while True:
        known: tuple[str, datetime, Quality] | None = cache.get(_key(project))
        if known is not None and known[0] == state:
            return Shown(known[2], known[1], pending=False)
        job = _begun(project, state)
        job.overview.wait(max(0.0, until - time.monotonic()))
        if not job.overview.ready():
            return Shown(known[2], known[1], pending=True) if known else Shown(None, None, pending=True)
        with _lock:
            mine = _jobs.get(project.pk) is job
            if mine:
                del _jobs[project.pk]
        found = job.quality()
        if mine:  # else somebody has stored it, or it tells of people who are deleted
            cache.set(_key(project), (job.state, job.at, found), KEPT_S)
        if job.state == state or job.at >= asked:
            return Shown(found, job.at, pending=False)


def forget() -> None:
    """All that was computed or is being computed, as it may name somebody who is deleted."""
    with _lock:
        _jobs.clear()
    cache.clear()


def compute(project: Project) -> Quality:
    """In this process, for a command. Raises HeedfulError."""
    judgements, words = _inputs(project)
    return Quality(**vars(overview(judgements, words)), gold=_gold(project), versus=_versus_of(project))


def _begun(project: Project, state: str) -> _Job:
    with _lock:
        job = _jobs.get(project.pk)
        if job is None or (timezone.now() - job.at).total_seconds() > LOST_S:
            work = background.start(overview, *_inputs(project))
            _jobs[project.pk] = _Job(state, timezone.now(), work, _gold(project), _versus_of(project))
        return _jobs[project.pk]


def _inputs(project: Project) -> tuple[list[Judgement], dict[str, int] | None]:
    judgements = list(judgements_of(project))
    thumbs = project.mode == Mode.THUMBS
    return (list(with_the_bar(judgements)), None) if thumbs else (judgements, _words(project))


def _key(project: Project) -> str:
    return f"quality-{project.pk}"


def _state(project: Project) -> str | None:
    """Changes with the judgements that count; None where there is none."""
    rows = models.Judgement.objects.filter(set__project=project).exclude(labeler__in=project.left_out.values("pk"))
    state = rows.aggregate(count=Count("pk"), latest=Max("created_at"))
    if not state["count"]:
        return None
    left_out = sorted(project.left_out.values_list("pk", flat=True))
    return f"{state['count']} {state['latest'].timestamp()} {left_out}"


def _words(project: Project) -> dict[str, int]:
    rows = project.sets.values_list("completions", flat=True).iterator(chunk_size=500)
    return words_of(Completion.model_validate(completion) for row in rows for completion in row)


def _gold(project: Project) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    rows = models.Judgement.objects.filter(set__project=project, set__gold__isnull=False)
    rows = rows.exclude(labeler__in=project.left_out.values("pk"))
    for row in rows.select_related("set", "labeler"):
        right, decided = gold_score(row)
        before = found.get(row.labeler.get_username(), (0, 0))
        found[row.labeler.get_username()] = before[0] + right, before[1] + decided
    return found


def _versus_of(project: Project) -> Versus | None:
    if project.mode != Mode.VERSUS:
        return None
    scores: dict[str, list[float]] = defaultdict(list)
    for judgement in (row for rows in latest(judgements_of(project)).values() for row in rows):
        by_side = {id_.partition("/")[0]: rank for id_, rank in judgement.ranks.items()}
        worst = len(judgement.shown_order) + 1  # what is flagged loses to what is not
        second, first = (by_side.get(side, worst) for side in (SECOND, FIRST))
        scores[judgement.prompt_id].append(0.5 + 0.5 * ((second < first) - (second > first)))
    alike = [f"identical-{i}" for i in range(project.num_identical)]
    pairs = [(score, prompt_id) for prompt_id, own in scores.items() for score in own] + [(0.5, name) for name in alike]
    means = [sum(own) / len(own) for own in scores.values()]
    wins, losses = sum(mean > 0.5 for mean in means), sum(mean < 0.5 for mean in means)
    names = names_of_sides(project.sets.order_by("pk")[0].completions)
    return Versus(
        first=names.get(FIRST, FIRST),
        second=names.get(SECOND, SECOND),
        rate=mean_interval([score for score, _ in pairs], [name for _, name in pairs], within=(0, 1)),
        wins=wins,
        ties=len(means) - wins - losses + len(alike),
        losses=losses,
        num_identical=len(alike),
        num_judgements=sum(map(len, scores.values())),
    )
