"""Talking to a run's policy and its base side by side, with thumbs and corrections."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from heedful.records import to_line
from heedful.version_log import standing_of
from heedful.web.labelling.views.rights import admin_only, user_of
from heedful.web.runs import chatting
from heedful.web.runs.catalogue import find_run, find_runs
from heedful.web.runs.models import Chat, Reply

A_PAGE = 20  # chats


class BeginForm(forms.Form):
    run = forms.ChoiceField(label="Run")
    temperature = forms.FloatField(min_value=0, max_value=2, initial=0.7, help_text="0 takes the likeliest token.")
    max_new_tokens = forms.IntegerField(label="Longest answer", min_value=1, max_value=2048, initial=80, help_text="In tokens.")

    def __init__(self, *given: Any, runs: list[str], **more: Any) -> None:
        super().__init__(*given, **more)
        choice = self.fields["run"]
        assert isinstance(choice, forms.ChoiceField)
        choice.choices = [(name, name) for name in runs]


@admin_only
@require_http_methods(["GET", "POST"])
def chats(request: HttpRequest) -> HttpResponse:
    if not chatting.offered():
        raise Http404("this server answers no chat; 'heedful serve' does")
    names = [run.name for run in find_runs(settings.RUNS).runs if chatting.policy_in(run.path) is not None]
    wanted = request.GET.get("run", "")
    form = BeginForm(request.POST or None, runs=names, initial={"run": wanted if wanted in names else ""})
    if request.method == "POST" and form.is_valid():
        chosen = form.cleaned_data
        run = find_run(settings.RUNS, chosen["run"])
        lengths = {"temperature": chosen["temperature"], "max_new_tokens": chosen["max_new_tokens"]}
        begun = chatting.begin(user_of(request), run, **lengths) if run else None
        if begun is not None:
            return redirect("chat", chat=begun.pk)
        form.add_error("run", "This run has no policy any more.")
    page = Paginator(user_of(request).chats.order_by("-started_at"), A_PAGE).get_page(request.GET.get("page"))
    return render(request, "runs/chats.html", {"form": form, "names": names, "page": page})


def _own(request: HttpRequest, chat: UUID) -> Chat:
    """Nobody reads another one's chat."""
    return get_object_or_404(Chat, pk=chat, owner=user_of(request))


@admin_only
@never_cache
@require_GET
def chat(request: HttpRequest, chat: UUID) -> HttpResponse:
    found = _own(request, chat)
    about = {"chat": found, "most": chatting.MOST_SAID, "standing": standing_of(Path(found.folder))}
    return render(request, "runs/chat.html", about | _turns(request, found))


@admin_only
@never_cache
@require_GET
def turns(request: HttpRequest, chat: UUID) -> HttpResponse:
    """The turns alone, for the page to put in their place."""
    return render(request, "runs/turns.html", {"chat": (found := _own(request, chat))} | _turns(request, found))


@admin_only
@never_cache
@require_GET
def pending(request: HttpRequest, chat: UUID) -> JsonResponse:
    return JsonResponse({"pending": chatting.waiting(_own(request, chat)) is not None})


def _turns(request: HttpRequest, found: Chat) -> dict[str, Any]:
    waiting = chatting.waiting(found)  # first: it may mark a turn as lost
    rows = []
    for turn in found.turns.prefetch_related("replies__thumbs", "replies__corrections"):
        replies = []
        for reply in turn.replies.all():
            own = [thumb.value for thumb in reply.thumbs.all() if thumb.labeler_id == user_of(request).pk]
            mended = [one.text for one in reply.corrections.all() if one.labeler_id == user_of(request).pk]
            replies.append((reply, own[-1] if own else None, mended[-1] if mended else ""))
        rows.append((turn, replies))
    return {"rows": rows, "waiting": waiting, "most": chatting.MOST_SAID}


@admin_only
@require_POST
def say(request: HttpRequest, chat: UUID) -> HttpResponse:
    found = _own(request, chat)
    said = request.POST.get("said", "").replace("\r\n", "\n").strip()  # a browser's lines end otherwise
    if not chatting.offered():
        messages.error(request, "This server answers no chat; 'heedful serve' does.")
    elif not said or "\0" in said:
        messages.error(request, "There is nothing in the message.")
    elif len(said) > chatting.MOST_SAID:
        messages.error(request, f"The message has {len(said)} characters; {chatting.MOST_SAID} are the most.")
    elif chatting.say(found, said) is None:
        messages.error(request, "The message before is still being answered, or this chat is full: begin another one.")
    return redirect("chat", chat=found.pk)


@admin_only
@require_POST
def thumb(request: HttpRequest, chat: UUID, reply: int) -> HttpResponse:
    found = get_object_or_404(Reply, pk=reply, turn__chat=_own(request, chat))
    value = request.POST.get("value", "")
    if value not in ("0", "1"):
        return HttpResponse("a thumb is 1, up, or 0, down", status=400, content_type="text/plain")
    chatting.vote(found, user_of(request), int(value))
    return redirect("chat", chat=chat)


@admin_only
@require_POST
def correct(request: HttpRequest, chat: UUID, reply: int) -> HttpResponse:
    found = get_object_or_404(Reply, pk=reply, turn__chat=_own(request, chat))
    text = request.POST.get("text", "").replace("\r\n", "\n").strip()
    if not text or "\0" in text or len(text) > chatting.MOST_SAID:
        told = f"a correction has 1 to {chatting.MOST_SAID} characters"
        return HttpResponse(told, status=400, content_type="text/plain")
    chatting.correct(found, user_of(request), text)
    return redirect("chat", chat=chat)


@admin_only
@require_POST
def delete(request: HttpRequest, chat: UUID) -> HttpResponse:
    """With all that was said in it, and its votes."""
    _own(request, chat).delete()
    messages.success(request, "The chat is deleted, and its votes with it.")
    return redirect("chats")


@admin_only
@require_GET
def votes(request: HttpRequest) -> HttpResponse:
    """Everybody's thumbs and corrections as four files of records in a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, found in chatting.records()._asdict().items():
            archive.writestr(f"{name}.jsonl", "".join(to_line(record) + "\n" for record in found))
    answer = HttpResponse(packed.getvalue(), content_type="application/zip")
    answer["Content-Disposition"] = 'attachment; filename="chat-votes.zip"'
    return answer
