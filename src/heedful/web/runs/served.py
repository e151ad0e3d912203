"""What every page knows: whether there are pages of runs, and whether somebody answers a chat."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest

from heedful.web.runs import chatting


def served(request: HttpRequest) -> dict[str, bool]:
    return {"serves_runs": bool(settings.RUNS), "serves_chat": bool(settings.RUNS) and chatting.offered()}
