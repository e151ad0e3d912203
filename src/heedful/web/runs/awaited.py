"""Runs that wait for people: where the labelling project is one of this very server, how far it is now."""

from __future__ import annotations

from dataclasses import replace

from django.urls import reverse

from heedful.waiting import said
from heedful.web.labelling import assignment
from heedful.web.labelling.models import Project
from heedful.web.runs.standing import Standing


def project_of(now: Standing) -> Project | None:
    """The project that a run waits for; None where it waits for nobody, or for another server's people.

    Its name holds a hash of what is judged, so one of the same name is the same.
    """
    return Project.objects.filter(slug=now.waiting["project"]).first() if now.waiting else None


def up_to_date(now: Standing) -> Standing:
    """With the counts of this server's database: a run whose command has ended tells what it saw last."""
    project = project_of(now)
    if project is None or now.waiting is None:
        return now
    total = now.waiting["total"]
    done = min(assignment.standing(project).finished_sets, total)
    return replace(now, done=done, note=now.note.replace(said(now.waiting["done"], total), said(done, total)))


def address_of(now: Standing) -> str:
    """Of the project's page; "" where there is none here."""
    project = project_of(now)
    return reverse("project", args=[project.slug]) if project else ""
