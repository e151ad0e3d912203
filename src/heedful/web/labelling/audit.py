"""The log of what was done."""

from __future__ import annotations

from heedful.web.labelling.models import AuditEntry, User

COMMAND_LINE = "command line"


def audit(who: User | None, action: str, about: str = "", *, subject: str = "") -> None:
    """Notes an action. who: None is whoever has the server's command line. about: a project's name.

    subject: the name of whom it was done to.
    """
    AuditEntry.objects.create(
        who=who.get_username() if who else COMMAND_LINE, action=action, subject=subject, about=about[:300]
    )
