"""What an admin sees and does."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from heedful.errors import HeedfulError
from heedful.feedback.consensus import consensus
from heedful.feedback.labelers import agreement, labeler_quality
from heedful.records import to_line
from heedful.web.labelling import files, judging, people
from heedful.web.labelling.assignment import standing
from heedful.web.labelling.audit import audit
from heedful.web.labelling.files import judgements_of
from heedful.web.labelling.forms import InstructionsForm, ProjectForm
from heedful.web.labelling.invitations import VALID_DAYS
from heedful.web.labelling.invitations import invite as new_invitation
from heedful.web.labelling.judging import current_instructions
from heedful.web.labelling.models import AuditEntry, Project, User

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]


def admin_only(view: View[P]) -> View[P]:
    @wraps(view)
    def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not (request.user.is_authenticated and request.user.is_staff):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return checked


def _admin(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@admin_only
@require_http_methods(["GET", "POST"])
def projects(request: HttpRequest) -> HttpResponse:
    form = ProjectForm(*((request.POST, request.FILES) if request.method == "POST" else ()))
    if request.method == "POST" and form.is_valid():
        created = form.create(_admin(request))
        if created is not None:
            return redirect("project", slug=created.slug)
    listed = [(project, standing(project)) for project in Project.objects.order_by("name")]
    return render(
        request,
        "labelling/projects.html",
        {"form": form, "listed": listed, "audit": AuditEntry.objects.filter(about="").order_by("-at")[:20]},
    )


@admin_only
@require_GET
def project(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Project, slug=slug)
    own = Count("judgements", filter=Q(judgements__set__project=found))
    shown = {
        "project": found,
        "standing": standing(found),
        "labelers": found.members.annotate(count=own).order_by("username"),
        "left_out": set(found.left_out.values_list("pk", flat=True)),
        "exports": found.exports.order_by("-at")[:5],
        "open_invitations": found.invitations.filter(used_at=None, expires_at__gt=timezone.now()).count(),
        "audit": AuditEntry.objects.filter(about=found.name).order_by("-at")[:20],
    }
    return render(request, "labelling/project.html", shown)


@admin_only
@never_cache
@require_POST
def invite(request: HttpRequest, slug: str | None = None) -> HttpResponse:
    found = get_object_or_404(Project, slug=slug) if slug else None
    token = new_invitation(found, admin=found is None, author=_admin(request))
    link = request.build_absolute_uri(reverse("join", args=[token]))
    return render(request, "labelling/invited.html", {"project": found, "link": link, "days": VALID_DAYS})


@admin_only
@require_POST
def pause(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Project, slug=slug)
    wanted = request.POST.get("paused") == "1"
    if Project.objects.filter(pk=found.pk, paused=not wanted).update(paused=wanted):
        audit(_admin(request), "paused" if wanted else "went on", found.name)
    return redirect("project", slug=slug)


@admin_only
@require_http_methods(["GET", "POST"])
def edit_instructions(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Project, slug=slug)
    current = current_instructions(found)
    form = InstructionsForm(
        request.POST if request.method == "POST" else None, initial={"text": current.text, "version": current.version}
    )
    if request.method == "POST" and form.is_valid():
        text = form.cleaned_data["text"].replace("\r\n", "\n")
        if judging.write_instructions(found, text, _admin(request), after=form.cleaned_data["version"]):
            return redirect("project", slug=slug)
        form.add_error(None, "Somebody else has stored another version meanwhile. Open this page anew and bring yours into it.")
    return render(request, "labelling/edit_instructions.html", {"project": found, "form": form, "version": current.version})


@admin_only
@require_GET
def quality(request: HttpRequest, slug: str) -> HttpResponse:
    """What the judgements come to so far, and who agrees with whom: `heedful consensus` on the same records."""
    found = get_object_or_404(Project, slug=slug)
    judgements = list(judgements_of(found))
    shown: dict[str, Any] = {"project": found}
    if judgements:
        try:
            settled = consensus(judgements)
            shown |= {
                "agreement": agreement(judgements),
                "labelers": labeler_quality(judgements),
                "num_clear": sum(result.margin is not None and result.margin > 0 for result in settled),
                "num_settled": len(settled),
            }
        except HeedfulError as error:
            messages.error(request, str(error))
    return render(request, "labelling/quality.html", shown)


@admin_only
@require_GET
def export(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Project, slug=slug)
    lines = [to_line(judgement) + "\n" for judgement in files.export(found, _admin(request))]
    answer = HttpResponse("".join(lines), content_type="application/x-ndjson")
    answer["Content-Disposition"] = f'attachment; filename="{found.slug}-judgements.jsonl"'
    return answer


@admin_only
@require_POST
def leave_out(request: HttpRequest, slug: str, labeler: int) -> HttpResponse:
    """Or take back: what the button says."""
    found = get_object_or_404(Project, slug=slug)
    person = get_object_or_404(User, pk=labeler)
    people.count_in(found, person, _admin(request), counted=request.POST.get("counted") == "1")
    return redirect("project", slug=slug)


@admin_only
@require_http_methods(["GET", "POST"])
def delete_labeler(request: HttpRequest, labeler: int) -> HttpResponse:
    person = get_object_or_404(User, pk=labeler)
    if request.method == "POST":
        if person == request.user:
            messages.error(request, "Another admin can delete you; you cannot delete yourself.")
            return redirect("projects")
        count = people.delete(person, _admin(request))
        messages.success(request, f"Deleted, with {count} judgements. Exports that held them are marked stale.")
        return redirect("projects")
    return render(request, "labelling/delete_labeler.html", {"labeler": person, "count": person.judgements.count()})
