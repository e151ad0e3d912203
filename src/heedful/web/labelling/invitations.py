"""Ways in: a link for one person, which expires and of which only a hash is kept."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from heedful.web.labelling.audit import audit
from heedful.web.labelling.models import Invitation, Project, User

VALID_DAYS = 7


def invite(project: Project | None, *, admin: bool = False, author: User | None = None) -> str:
    """A new invitation's token; it cannot be looked up later."""
    token = secrets.token_urlsafe(32)
    Invitation.objects.create(
        token_hash=_hash(token),
        project=project,
        admin=admin,
        author=author,
        expires_at=timezone.now() + timedelta(days=VALID_DAYS),
    )
    audit(author, "invited an admin" if admin else "invited a labeler", project.name if project else "")
    return token


def find(token: str) -> Invitation | None:
    """The invitation, where it is neither used nor expired."""
    return Invitation.objects.filter(token_hash=_hash(token), used_at=None, expires_at__gt=timezone.now()).first()


def accept(token: str, user: User) -> bool:
    """Uses the invitation up: the user becomes an admin or a member. False when somebody was faster. Saves the user."""
    with transaction.atomic():
        unused = Invitation.objects.select_for_update().filter(
            token_hash=_hash(token), used_at=None, expires_at__gt=timezone.now()
        )
        found = unused.first()
        if found is None:
            return False
        user.is_staff = user.is_staff or found.admin
        user.save()
        Invitation.objects.filter(pk=found.pk).update(used_at=timezone.now(), used_by=user)
        if found.project is not None:
            found.project.members.add(user)
        audit(user, "joined", found.project.name if found.project else "as an admin")
    return True


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
