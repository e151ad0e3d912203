"""The API: what the pages do, for programs, by the same functions. A bearer token is the only way in; cookies do not count.

Its documentation is docs/api.md, and /api/openapi.json for machines.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from django.contrib.auth.decorators import login_not_required
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, reverse
from django.views.decorators.cache import never_cache
from ninja import NinjaAPI, Status
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.operation import Operation
from ninja.params.models import Query
from ninja.security import HttpBearer
from pydantic_core import to_jsonable_python

from heedful import __version__, exchange
from heedful.errors import HeedfulError
from heedful.records import Completion, Prompt, to_line
from heedful.web.labelling import files, judgement_pages, people, quality, tokens
from heedful.web.labelling.assignment import pause, standing
from heedful.web.labelling.invitations import VALID_DAYS, invite
from heedful.web.labelling.models import ApiToken, Judgement, Project, User
from heedful.web.labelling.request_body import Body
from heedful.web.labelling.views.rights import may_manage

NO_TOKEN = (
    "send a token that is valid, as in 'Authorization: Bearer heedful_...'; tokens expire, and 'heedful label users token' on "
    "the server's machine makes one"
)
NDJSON = "application/x-ndjson"
LINES = {"type": "string", "description": "Judgement records, one JSON object a line, oldest first."}
LARGEST_KEY = 2**63 - 1
PATIENCE_S = 45.0  # for figures; clients wait a minute

# What may be answered instead, for the OpenAPI document.
REFUSED = frozenset({401, 403, 404, 422})
BODY_REFUSED = REFUSED | {400, 413}


class Asked(HttpRequest):
    """A request whose token was found."""

    auth: ApiToken


class BearerToken(HttpBearer):
    """Of `tokens.make`."""

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        return tokens.find(token)


class Api(NinjaAPI):
    def get_openapi_operation_id(self, operation: Operation) -> str:
        return operation.view_func.__name__


# No page of documentation: ninja's loads scripts from elsewhere, which the content security policy forbids.
api = Api(
    title="heedful's labelling server",
    version=__version__,
    description="Projects, invitations, judgements. Every request carries a token, with the rights of whom it belongs to.",
    urls_namespace="api",
    openapi_url=None,
    docs_url=None,
    auth=BearerToken(),
)
api.add_decorator(never_cache, mode="view")


def routes() -> tuple[list[Any], str, str]:
    """For `path`. Views with a token's check are taken out of the log-in's; ninja's root, which has none, stays behind it."""
    patterns, app, namespace = api.urls
    for pattern in patterns:
        if isinstance(pattern, URLPattern) and pattern.name != "api-root":
            login_not_required(pattern.callback)
    return patterns, app, namespace


# Errors


def _problem(request: HttpRequest, status: int, detail: str) -> HttpResponse:
    return api.create_response(request, exchange.Problem(detail=detail).model_dump(), status=status)


@api.exception_handler(AuthenticationError)
def _without_token(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    answer = _problem(request, 401, NO_TOKEN)
    answer["WWW-Authenticate"] = "Bearer"
    return answer


@api.exception_handler(HeedfulError)
def _not_done(request: HttpRequest, error: HeedfulError) -> HttpResponse:
    return _problem(request, 409 if isinstance(error, files.TakenError) else 422, str(error))


@api.exception_handler(ValidationError)
def _malformed(request: HttpRequest, error: ValidationError) -> HttpResponse:
    first = error.errors[0]
    source, *field = first["loc"]
    return _problem(request, 422, f"the {source}'s '{'.'.join(map(str, field))}': {first['msg']}")


# Rights


def _role(project: Project, owner: User) -> Literal["admin", "manager", "labeler"]:
    if owner.is_staff:
        return "admin"
    return "manager" if may_manage(owner, project) else "labeler"


def _visible(owner: User) -> QuerySet[Project]:
    """Others do not exist for the owner."""
    own = Q(pk__in=owner.projects.values("pk")) | Q(pk__in=owner.managed.values("pk"))
    return Project.objects.all() if owner.is_staff else Project.objects.filter(own)


def _managed(request: Asked, slug: str) -> Project:
    owner = request.auth.owner
    project = _visible(owner).filter(slug=slug).first()
    if project is None:
        raise HttpError(404, f"project {slug!r} is none of yours; GET {reverse('api:list_projects')} lists them")
    if not may_manage(owner, project):
        raise HttpError(403, f"{owner.get_username()!r} labels in project {slug!r}; this takes one who manages it, or an admin")
    return project


# Projects


def _fields(project: Project, owner: User) -> dict[str, Any]:
    names = ("slug", "name", "criterion", "mode", "overlap", "adaptive", "paused")
    return {name: getattr(project, name) for name in names} | {"role": _role(project, owner)}


def _detail(project: Project, owner: User) -> exchange.ProjectDetail:
    reached = exchange.Standing.model_validate(to_jsonable_python(standing(project)))
    return exchange.ProjectDetail(**_fields(project, owner), standing=reached, num_identical=project.num_identical)


@api.get("/projects", response={200: list[exchange.Project], 401: exchange.Problem})
def list_projects(request: Asked) -> list[exchange.Project]:
    """Those that the token's owner labels in or manages; an admin's token lists all."""
    owner = request.auth.owner
    return [exchange.Project(**_fields(project, owner)) for project in _visible(owner).order_by("name")]


@api.post("/projects", response={201: exchange.ProjectDetail, BODY_REFUSED | {409}: exchange.Problem})
def create_project(request: Asked, sent: Annotated[exchange.NewProject, Body(...)]) -> Status[exchange.ProjectDetail]:
    """A project of prompts and their completions. Admins only. 409: another project has the name."""
    owner = request.auth.owner
    if not owner.is_staff:
        raise HttpError(403, f"{owner.get_username()!r} is no admin; only an admin makes projects")
    task = files.Task(sent.criterion, sent.mode, sent.overlap, sent.adaptive)
    made = files.create_project(
        sent.name, sent.prompts, sent.completions, task, gold=sent.gold, against=sent.against, author=owner
    )
    return Status(201, _detail(made, owner))


@api.get("/projects/{slug:slug}", response={200: exchange.ProjectDetail, REFUSED: exchange.Problem})
def show_project(request: Asked, slug: str) -> exchange.ProjectDetail:
    """With how far it is."""
    return _detail(_managed(request, slug), request.auth.owner)


@api.post("/projects/{slug:slug}/pause", response={200: exchange.ProjectDetail, BODY_REFUSED: exchange.Problem})
def pause_project(request: Asked, slug: str, sent: Annotated[exchange.Paused, Body(...)]) -> exchange.ProjectDetail:
    """Stops handing sets out, or goes on."""
    project, owner = _managed(request, slug), request.auth.owner
    pause(project, owner, paused=sent.paused)
    project.paused = sent.paused
    return _detail(project, owner)


@api.post("/projects/{slug:slug}/invitations", response={201: exchange.Invitation, REFUSED: exchange.Problem})
def invite_labeler(request: Asked, slug: str) -> Status[exchange.Invitation]:
    """A link by which one person joins as a labeler; it is shown once."""
    token = invite(_managed(request, slug), author=request.auth.owner)
    link = request.build_absolute_uri(reverse("join", args=[token]))
    return Status(201, exchange.Invitation(link=link, valid_days=VALID_DAYS))


# What is in a project


@api.get(
    "/projects/{slug:slug}/judgements",
    response={200: None, REFUSED: exchange.Problem},
    openapi_extra={"responses": {200: {"content": {NDJSON: {"schema": LINES}}}}},
)
def read_judgements(
    request: Asked,
    slug: str,
    limit: Annotated[int, Query(1_000, ge=1, le=exchange.MOST_JUDGEMENTS)],
    after: UUID | None = None,
) -> HttpResponse:
    """Judgement records, one JSON object a line. after: the id of the last one that is known. Fewer than limit are the last.

    What is read is noted as an export is.
    """
    found = judgement_pages.page(_managed(request, slug), request.auth, after=after, limit=limit)
    return HttpResponse("".join(to_line(judgement) + "\n" for judgement in found), content_type=NDJSON)


@api.get("/projects/{slug:slug}/sets", response={200: exchange.SetsPage, REFUSED: exchange.Problem})
def read_sets(
    request: Asked,
    slug: str,
    after: Annotated[int, Query(0, ge=0, le=LARGEST_KEY)],
    limit: Annotated[int, Query(100, ge=1, le=exchange.MOST_SETS)],
) -> exchange.SetsPage:
    """Prompts with their completions. after: of the page before."""
    rows = list(_managed(request, slug).sets.filter(pk__gt=after).order_by("pk")[: limit + 1])
    shown = [
        exchange.LabelledSet(
            id=row.pk,
            prompt=Prompt.model_validate(row.prompt),
            completions=[Completion.model_validate(completion) for completion in row.completions],
            gold=row.gold,
            wanted=row.wanted,
        )
        for row in rows[:limit]
    ]
    return exchange.SetsPage(sets=shown, after=shown[-1].id if len(rows) > limit else None)


@api.get("/projects/{slug:slug}/quality", response={200: exchange.Quality | None, REFUSED | {503}: exchange.Problem})
def read_quality(request: Asked, slug: str) -> exchange.Quality | None:
    """Agreement and the quality of each labeler, as on the project's quality page; null without judgements.

    503: it is being computed; ask again.
    """
    now = quality.shown(_managed(request, slug), PATIENCE_S)
    if now.pending:
        raise HttpError(503, "the figures are being computed; ask again in a minute")
    return None if now.quality is None else exchange.Quality.model_validate(to_jsonable_python(now.quality))


def _labelers(project: Project) -> QuerySet[Any]:
    """Members, and whoever judged something; with the number of judgements, as `num_judgements`."""
    judged = Judgement.objects.filter(set__project=project)
    known = User.objects.filter(Q(pk__in=project.members.values("pk")) | Q(pk__in=judged.values("labeler")))
    return known.annotate(num_judgements=Count("judgements", filter=Q(judgements__set__project=project)))


@api.get("/projects/{slug:slug}/labelers", response={200: list[exchange.Labeler], REFUSED: exchange.Problem})
def list_labelers(request: Asked, slug: str) -> list[exchange.Labeler]:
    """Who labels in the project, and how much each has judged."""
    project = _managed(request, slug)
    left_out = set(project.left_out.values_list("pk", flat=True))
    return [
        exchange.Labeler(name=person.username, judgements=person.num_judgements, counted=person.pk not in left_out)
        for person in _labelers(project).order_by("username")
    ]


@api.post("/projects/{slug:slug}/labelers/{name}/counted", response={200: exchange.Labeler, BODY_REFUSED: exchange.Problem})
def count_labeler(request: Asked, slug: str, name: str, sent: Annotated[exchange.Counted, Body(...)]) -> exchange.Labeler:
    """Leaves a labeler's judgements out of everything, or takes them back in; they stay stored."""
    project = _managed(request, slug)
    person = None if "\0" in name else _labelers(project).filter(username=name).first()
    if person is None:
        raise HttpError(404, f"nobody called {name!r} labels in project {slug!r}")
    people.count_in(project, person, request.auth.owner, counted=sent.counted)
    return exchange.Labeler(name=name, judgements=person.num_judgements, counted=sent.counted)


@api.get("/openapi.json", include_in_schema=False)
def openapi(request: Asked) -> dict[str, Any]:
    """This API for machines. It tells nothing secret, but one rule for all of it is easier to keep."""
    return api.get_openapi_schema()
