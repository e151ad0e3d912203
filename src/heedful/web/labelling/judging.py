"""Taking an answer in: it is checked, stored once, and only then acknowledged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from heedful.errors import DataError
from heedful.web.labelling.models import CompletionSet, Handout, Instructions, Judgement, Project, User

MAX_NOTE = 5_000
GONE = (
    "This set went to somebody else, for it was open longer than a set is kept, and it has all its answers now. "
    "Yours was not stored; the next set is below."
)


class RefusedError(DataError):
    """An answer that is not stored; the message is for the labeler."""


@dataclass(frozen=True)
class Answer:
    """ranks: of completion ids, 1 best, equal = tie, without gaps. flagged: the others. seconds: that the page was in sight."""

    ranks: dict[str, int]
    flagged: list[str]
    seconds: float
    note: str


def groups(completions: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[list[str]]:
    """Ids of completions with the same text, in the order shown: a group is shown once."""
    text = {completion["id"]: completion["text"].strip() for completion in completions}
    found: dict[str, list[str]] = {}
    for id_ in order:
        found.setdefault(text[id_], []).append(id_)
    return list(found.values())


def read_answer(raw: str, note: str, handout: Handout) -> Answer:
    """From what the page sends: tiers of numbers of what was shown, best first, and the numbers flagged.

    Raises RefusedError when something shown is in none of them or in two.
    """
    shown = groups(handout.set.completions, handout.shown_order)
    try:
        sent = json.loads(raw)
        tiers, flags, seconds = sent["tiers"], sent["flagged"], float(sent["seconds"])
        numbers = [number for tier in tiers for number in tier] + list(flags)
        complete = all(type(n) is int for n in numbers) and sorted(numbers) == list(range(len(shown))) and all(tiers)
        in_time = 0 <= seconds < float("inf")
    except (ValueError, TypeError, KeyError, RecursionError):
        complete = in_time = False
    if not (complete and in_time):
        raise RefusedError("Each answer is ranked or flagged before a set is sent. Nothing was stored; go on below.")
    ranks = {id_: rank for rank, tier in enumerate(tiers, start=1) for number in tier for id_ in shown[number]}
    flagged = [id_ for number in flags for id_ in shown[number]]
    elapsed = (timezone.now() - handout.begun_at).total_seconds()
    return Answer(ranks, flagged, round(min(seconds, elapsed), 1), note.replace("\0", "").strip()[:MAX_NOTE])


def submit(project: Project, labeler: User, set_pk: int, raw: str, note: str) -> Judgement:
    """Stores the answer, once: sent again, the first one is returned. Raises RefusedError.

    An answer that comes after its hand-out expired counts as long as its place is still free.
    """
    with transaction.atomic():
        project = Project.objects.select_for_update().get(pk=project.pk)
        before = Judgement.objects.filter(set=set_pk, labeler=labeler).first()
        if before is not None:
            return before
        handout = Handout.objects.filter(set=set_pk, set__project=project, labeler=labeler, skipped=False).first()
        if handout is None:
            raise RefusedError("This set is not in your hands; the next one is below.")
        if project.paused:
            raise RefusedError("The project is paused. Nothing was stored; your ranking stays in this page until it goes on.")
        now = timezone.now()
        if handout.expires_at <= now and _taken(handout.set, handout, now) >= project.overlap:
            handout.delete()
            raise RefusedError(GONE)
        answer = read_answer(raw, note, handout)
        judgement = Judgement.objects.create(
            set=handout.set,
            labeler=labeler,
            instructions=current_instructions(project),
            ranks=answer.ranks,
            flagged=answer.flagged,
            shown_order=handout.shown_order,
            seconds=answer.seconds,
            note=answer.note,
            created_at=now,
        )
        handout.delete()
    return judgement


def _taken(of: CompletionSet, but: Handout, now: Any) -> int:
    open_ = of.handouts.filter(expires_at__gt=now, skipped=False).exclude(pk=but.pk)
    counted = of.judgements.exclude(labeler__in=of.project.left_out.values("pk"))
    return counted.count() + open_.count()


def current_instructions(project: Project) -> Instructions:
    return project.instructions.order_by("-version")[0]
