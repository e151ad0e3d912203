"""Who may see which page. Every page asks for a log-in by itself; these ask for more."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404

from heedful.web.labelling.models import Project, User

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]
ProjectView = Callable[Concatenate[HttpRequest, Project, P], HttpResponseBase]


def user_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # the middleware lets nobody else through
    return request.user


def may_manage(user: User, project: Project) -> bool:
    return user.is_staff or project.managers.filter(pk=user.pk).exists()


def admin_only(view: View[P]) -> View[P]:
    @wraps(view)
    def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not (request.user.is_authenticated and request.user.is_staff):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return checked


def managers_only(view: ProjectView[P]) -> Callable[..., HttpResponseBase]:
    """The view gets the project instead of its address. Others are not told whether there is such a project."""

    @wraps(view)
    def checked(request: HttpRequest, /, slug: str, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        user = user_of(request)
        project = Project.objects.filter(slug=slug).first()
        if not user.is_staff and (project is None or not may_manage(user, project)):
            raise PermissionDenied
        return view(request, project or get_object_or_404(Project, slug=slug), *args, **kwargs)

    return checked
