"""The chat: turns that wait for the models' answers, which a process beside the server gives, and what people say of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import Max
from django.utils import timezone

from heedful.opinions import Opinions, corrected, spoken, voted
from heedful.records import Completion, Message, Prompt, Sampling
from heedful.versions import ABOUT, policy_in_use
from heedful.web.labelling.models import User
from heedful.web.runs.answering import Answering
from heedful.web.runs.catalogue import Found
from heedful.web.runs.models import Chat, Correction, Reply, Side, Thumb, Turn

MOST_SAID = 8_000  # characters of a message
MOST_TURNS = 200
PATIENCE = timedelta(minutes=10)
LOST = "The server was stopped before there was an answer. Say it again."

# policy, base, histories by side, message, temperature, max_new_tokens, seed -> replies by side with text and finished
_answering: Answering | None = None
_since = datetime.min.replace(tzinfo=UTC)  # when this server began to answer
_pending: set[int] = set()  # turns that this server is answering
_lock = threading.Lock()


def offer(answer: Callable[..., dict[str, Any]]) -> None:
    """Who answers: a function that a fresh process can import."""
    global _answering, _since
    _answering, _since = Answering(answer), timezone.now()


def offered() -> bool:
    return _answering is not None


def policy_in(run: Path) -> tuple[Path, str] | None:
    """The policy of a run that is in use and the source of its base; None where nothing is saved yet."""
    newest = policy_in_use(run)
    if newest is None:
        return None
    try:
        return newest, str(json.loads((newest / ABOUT).read_text(encoding="utf-8"))["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begin(owner: User, run: Found, *, temperature: float, max_new_tokens: int) -> Chat | None:
    """None where the run has no policy yet."""
    found = policy_in(run.path)
    if found is None:
        return None
    folder, base = found
    return Chat.objects.create(
        owner=owner, run=run.name, folder=str(folder), base=base, temperature=temperature, max_new_tokens=max_new_tokens
    )


def say(chat: Chat, said: str) -> Turn | None:
    """Adds a turn and has it answered; None while the one before still waits, or when the chat has become too long."""
    assert _answering is not None, "nobody offers an answer"
    with transaction.atomic():
        Chat.objects.select_for_update().get(pk=chat.pk)
        if waiting(chat) or chat.turns.count() >= MOST_TURNS:
            return None
        last = chat.turns.aggregate(last=Max("number"))["last"]
        turn = Turn.objects.create(chat=chat, number=(last or 0) + 1, said=said)
        asked = (chat.folder, chat.base, histories(turn), said, chat.temperature, chat.max_new_tokens, turn.pk)
        with _lock:  # before others can see the turn
            _pending.add(turn.pk)
    _answering.ask(asked, partial(_store, turn.pk))
    return turn


def histories(turn: Turn) -> dict[str, list[tuple[str, str]]]:
    """What each side has heard and answered before this turn; turns without an answer are in no history."""
    found: dict[str, list[tuple[str, str]]] = {side: [] for side in Side.values}
    for earlier in turn.chat.turns.filter(number__lt=turn.number).prefetch_related("replies"):
        for reply in earlier.replies.all():
            found[reply.side] += [("user", earlier.said), ("assistant", reply.text)]
    return found


def waiting(chat: Chat) -> Turn | None:
    """The turn that is being answered. One that an earlier server left unanswered gets to know that."""
    for turn in chat.turns.filter(replies=None, problem=""):
        with _lock:
            if turn.pk in _pending:
                return turn
        if timezone.now() - turn.asked_at < PATIENCE and turn.asked_at > _since:
            return turn  # another server on this database may be at it
        Turn.objects.filter(pk=turn.pk, problem="", replies=None).update(problem=LOST)
    return None


def _store(turn: int, replies: dict[str, Any] | None, problem: str) -> None:
    """replies: None where there is a problem. On a thread of its own, which needs no connection to the database any more."""
    try:
        with transaction.atomic():
            if not Turn.objects.filter(pk=turn).update(problem=problem):
                return  # deleted meanwhile
            for side, reply in (replies or {}).items():
                Reply.objects.create(turn_id=turn, side=side, text=reply.text, finished=reply.finished, version=reply.version)
    except IntegrityError:
        pass  # deleted just now
    finally:
        with _lock:
            _pending.discard(turn)
        if threading.current_thread() is not threading.main_thread():
            connection.close()


def vote(reply: Reply, labeler: User, value: int) -> None:
    Thumb.objects.create(reply=reply, labeler=labeler, value=value)


def correct(reply: Reply, labeler: User, text: str) -> None:
    Correction.objects.create(reply=reply, labeler=labeler, text=text)


def records(named: str | None = None, run: Path | None = None) -> Opinions:
    """Of what has a thumb or a correction; the latest of each person's counts. named, run: of chats with the run of this name,
    and of those with a policy in this folder, alone.

    As `heedful update` and `heedful align kto` read them.
    """
    of: dict[str, Any] = {} if named is None else {"reply__turn__chat__run": named}
    if run is not None:
        folders = Chat.objects.values_list("folder", flat=True).distinct()
        of["reply__turn__chat__folder__in"] = [folder for folder in folders if Path(folder).is_relative_to(run.resolve())]
    thumbs = Thumb.objects.filter(**of).select_related("reply__turn__chat", "labeler").order_by("pk")
    corrections = Correction.objects.filter(**of).select_related("reply__turn__chat", "labeler").order_by("pk")
    prompts: dict[str, Prompt] = {}
    completions: dict[str, Completion] = {}

    def answer_of(reply: Reply) -> Completion:
        turn = reply.turn
        prompt_id = f"chat-{turn.chat_id}-{turn.number}-{reply.side}"
        if prompt_id not in prompts:
            turns = [*histories(turn)[reply.side], ("user", turn.said)]
            messages = [Message.model_validate({"role": role, "content": text}) for role, text in turns]
            prompts[prompt_id] = spoken(prompt_id, messages)
            completions[prompt_id] = _completion(reply, prompt_id)
        return completions[prompt_id]

    votes = []
    for thumb in {(one.reply_id, one.labeler_id): one for one in thumbs}.values():
        votes.append(voted(answer_of(thumb.reply), thumb.labeler.username, thumb.value, _at(thumb.at)))
    written, judgements = [], []
    for one in {(one.reply_id, one.labeler_id): one for one in corrections}.values():
        own, judgement = corrected(answer_of(one.reply), one.text, one.labeler.username, _at(one.at))
        written.append(own)
        judgements.append(judgement)
    return Opinions(list(prompts.values()), [*completions.values(), *written], votes, judgements)


def _at(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


def _completion(reply: Reply, prompt_id: str) -> Completion:
    chat = reply.turn.chat
    return Completion(
        id=f"{prompt_id}/1",
        prompt_id=prompt_id,
        text=reply.text,
        model=chat.base,
        policy_version=reply.version,
        finish="stop" if reply.finished else "length",
        sampling=Sampling(temperature=chat.temperature, top_p=1.0, seed=reply.turn_id, max_new_tokens=chat.max_new_tokens),
    )
