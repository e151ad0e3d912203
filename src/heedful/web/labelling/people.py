"""Leaving a labeler's judgements out, which can be taken back, and deleting a person's data, which cannot.

What is derived (consensus, quality, counts, free places) is computed from the judgements whenever it is asked for, so that it
is without them at once. Files that were exported before are marked stale.
"""

from __future__ import annotations

from django.contrib.sessions.models import Session
from django.db import transaction

from heedful.web.labelling.audit import audit
from heedful.web.labelling.models import AuditEntry, Export, Judgement, Project, User

DELETED = "a deleted labeler"


def leave_out(project: Project, labeler: User, who: User) -> None:
    """Of consensus, quality and exports; the judgements stay stored, and their places in the sets are free again."""
    with transaction.atomic():
        project.left_out.add(labeler)
        project.exports.update(stale=True)
        audit(who, f"left out {labeler.get_username()}", project.name)


def take_back(project: Project, labeler: User, who: User) -> None:
    with transaction.atomic():
        project.left_out.remove(labeler)
        project.exports.update(stale=True)
        audit(who, f"took back in {labeler.get_username()}", project.name)


def delete(labeler: User, who: User) -> int:
    """All that is known of a person: judgements, hand-outs, profile, sessions, the name in the log.

    Returns how many judgements went.
    """
    name = labeler.get_username()
    with transaction.atomic():
        judged = Project.objects.filter(sets__judgements__labeler=labeler).distinct()
        Export.objects.filter(project__in=list(judged)).update(stale=True)
        count, _ = Judgement.objects.filter(labeler=labeler).delete()
        for session in Session.objects.all().iterator():
            if session.get_decoded().get("_auth_user_id") == str(labeler.pk):
                session.delete()
        AuditEntry.objects.filter(who=name).update(who=DELETED)
        for entry in AuditEntry.objects.filter(action__endswith=f" {name}"):
            entry.action = entry.action.removesuffix(name) + DELETED
            entry.save(update_fields=["action"])
        labeler.delete()
        audit(who, f"deleted a labeler with {count} judgements")
    return count
