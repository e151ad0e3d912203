"""Which set a labeler is given next.

Every rule is kept inside one transaction that locks the project's row (on SQLite the transaction holds the whole database), so
that two labelers who ask at the same moment are never both given the last place of a set.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Count, Q
from django.utils import timezone

from heedful.web.labelling.models import CompletionSet, Handout, Judgement, Project, User


@dataclass(frozen=True)
class Standing:
    """How far a project is, in judgements. sets: that have all theirs, of how many."""

    judgements: int
    wanted: int
    finished_sets: int
    sets: int


def next_handout(project: Project, labeler: User) -> Handout | None:
    """The set in the labeler's hands, or a new one; None where there is none left for this labeler now.

    A set has room while its judgements and the hand-outs that have not expired are fewer than the project's overlap. Sets
    that were begun come before others, so that consensus forms early; among equals the lot decides.
    """
    with transaction.atomic():
        project = Project.objects.select_for_update().get(pk=project.pk)
        now = timezone.now()
        if project.paused:
            return None
        expires = now + timedelta(minutes=project.lease_minutes)
        held = _held(project, labeler, now)
        if held is not None:
            held.expires_at = expires
            held.save(update_fields=["expires_at"])
            return held
        chosen = _choose(project, labeler, now)
        if chosen is None:
            return None
        order = shuffled([completion["id"] for completion in chosen.completions])
        nonce = secrets.token_hex(8)
        fresh = {"shown_order": order, "nonce": nonce, "begun_at": now, "expires_at": expires, "skipped": False}
        return Handout.objects.update_or_create(set=chosen, labeler=labeler, defaults=fresh)[0]


def _held(project: Project, labeler: User, now: datetime) -> Handout | None:
    mine = Handout.objects.filter(set__project=project, labeler=labeler, skipped=False, expires_at__gt=now)
    return mine.order_by("begun_at").first()


def _choose(project: Project, labeler: User, now: datetime) -> CompletionSet | None:
    judged = Judgement.objects.filter(labeler=labeler).values("set")
    skipped = Handout.objects.filter(labeler=labeler, skipped=True).values("set")
    in_hands = Count("handouts", filter=Q(handouts__expires_at__gt=now, handouts__skipped=False), distinct=True)
    sets = project.sets.exclude(pk__in=judged).exclude(pk__in=skipped)
    free = sets.annotate(taken=_counted(project) + in_hands).filter(taken__lt=project.overlap)
    counts = list(free.values_list("pk", "taken"))
    most = max((taken for _, taken in counts), default=0)
    best = [pk for pk, taken in counts if taken == most]
    return CompletionSet.objects.get(pk=random.choice(best)) if best else None


def _counted(project: Project) -> Count:
    """Judgements of a set, less those that an admin has left out: their places are free again."""
    return Count("judgements", filter=~Q(judgements__labeler__in=project.left_out.values("pk")), distinct=True)


def shuffled(ids: Sequence[str]) -> list[str]:
    return random.sample(list(ids), len(ids))


def skip(handout: Handout) -> None:
    """The set does not come back to this labeler, and its place is free for others."""
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=handout.set.project.pk)
        Handout.objects.filter(pk=handout.pk).update(skipped=True)


def standing(project: Project) -> Standing:
    counts = list(project.sets.annotate(count=_counted(project)).values_list("count", flat=True))
    return Standing(sum(counts), project.overlap * len(counts), sum(count >= project.overlap for count in counts), len(counts))
