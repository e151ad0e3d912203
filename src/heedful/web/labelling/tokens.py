"""A program's way in: a token with the rights of the person it belongs to, which expires and of which only a hash is kept."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.utils import timezone

from heedful.errors import DataError
from heedful.web.labelling.audit import audit
from heedful.web.labelling.models import ApiToken, User

PREFIX = "heedful_"  # so that a search for secrets that were committed finds it
MOST_NAME = 60
MOST_DAYS = 3650
NOTED_EVERY = timedelta(minutes=1)  # a write for every request would hold up the labelers


def make(owner: User, name: str, days: int = 90, *, author: User | None = None) -> str:
    """A new token; it cannot be looked up later. name: what it is for. author: None is the command line. Raises DataError."""
    if not 0 < len(name.strip()) <= MOST_NAME or "\0" in name:
        raise DataError(f"a token's name says what it is for, in 1 to {MOST_NAME} characters")
    if not 1 <= days <= MOST_DAYS:
        raise DataError(f"a token lives for 1 to {MOST_DAYS} days, not {days}")
    token = PREFIX + secrets.token_urlsafe(32)
    expires = timezone.now() + timedelta(days=days)
    ApiToken.objects.create(token_hash=_hash(token), owner=owner, name=name.strip(), expires_at=expires)
    audit(author, f"made the token {name.strip()!r}", subject=owner.get_username())
    return token


def find(token: str) -> ApiToken | None:
    """The token with its owner, where it has not expired and the owner's account is open. Notes that it was used."""
    now = timezone.now()
    valid = ApiToken.objects.filter(token_hash=_hash(token), expires_at__gt=now, owner__is_active=True)
    found = valid.select_related("owner").first()
    if found is not None and (found.used_at is None or found.used_at <= now - NOTED_EVERY):
        ApiToken.objects.filter(pk=found.pk, used_at=found.used_at).update(used_at=now)
    return found


def revoke(token: ApiToken, *, author: User | None = None) -> None:
    """Worth nothing from now on."""
    if ApiToken.objects.filter(pk=token.pk).delete()[0]:
        audit(author, f"revoked the token {token.name!r}", subject=token.owner.get_username())


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
