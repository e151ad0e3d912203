"""Corrections in the web's chat: who may give them, what is kept, and what they become."""

from __future__ import annotations

from pathlib import Path

import pytest
import run_folder
from django.test import Client
from labelled_project import SCRIPT

from heedful.opinions import CORRECTION, PERSON, preferences_of
from heedful.store import write_json
from heedful.talking import Answered
from heedful.web.labelling.models import User
from heedful.web.runs import chatting
from heedful.web.runs.catalogue import Found
from heedful.web.runs.models import Chat, Correction, Turn


@pytest.fixture
def chat(runs: Path, admin: User) -> Chat:
    run = run_folder.make(runs / "first", state="done")
    write_json(run / "ppo" / "policy" / "heedful.json", {"base": "smollm2-135m", "policy_version": "ppo-0-9"})
    made = chatting.begin(admin, Found("first", run), temperature=0.5, max_new_tokens=30)
    assert made is not None
    turn = Turn.objects.create(chat=made, number=1, said="Knock, knock.")
    replies = {"base": Answered("Clap, clap.", True, "base"), "aligned": Answered("Boo.", True, "ppo-0-9")}
    chatting._store(turn.pk, replies, "")
    return made


def test_a_correction_becomes_a_judgement_above_the_answer(chat: Chat, boss: Client, admin: User) -> None:
    reply = chat.turns.get().replies.get(side="aligned")
    address = f"/chat/{chat.pk}/correct/{reply.pk}/"
    for text in ("Who?", f"Who's there? {SCRIPT}\r\nSay."):  # the latest counts, and both are kept
        assert boss.post(address, {"text": text}).status_code == 302
    assert Correction.objects.count() == 2
    page = boss.get(f"/chat/{chat.pk}/").content.decode()
    assert SCRIPT not in page
    assert "Who&#x27;s there?" in page
    found = chatting.records()
    assert (len(found.prompts), found.votes) == (1, [])
    answer, own = found.completions
    assert (answer.text, own.text, own.model) == ("Boo.", f"Who's there? {SCRIPT}\nSay.", PERSON)
    (judgement,) = found.judgements
    assert (judgement.ranks, judgement.criterion) == ({own.id: 1, answer.id: 2}, CORRECTION)
    assert judgement.labeler == admin.username
    assert [pair.chosen for pair in preferences_of(found)] == [own.text]
    assert chatting.records("another").judgements == []
    assert chatting.records("first") == found


@pytest.mark.parametrize("text", ["", "  \n", "a\0b", "x" * 8_001])
def test_what_is_no_correction_is_not_kept(text: str, chat: Chat, boss: Client) -> None:
    reply = chat.turns.get().replies.get(side="base")
    assert boss.post(f"/chat/{chat.pk}/correct/{reply.pk}/", {"text": text}).status_code == 400
    assert not Correction.objects.exists()


def test_nobody_corrects_in_another_ones_chat(chat: Chat, db: None) -> None:
    other = Client()
    other.force_login(User.objects.create_user("other", password="quiet-harbour-91", is_staff=True))
    reply = chat.turns.get().replies.get(side="base")
    assert other.post(f"/chat/{chat.pk}/correct/{reply.pk}/", {"text": "Hm."}).status_code == 404
    assert other.get(f"/chat/{chat.pk}/correct/{reply.pk}/").status_code in (404, 405)
