"""Corrections in the web's chat: who may give them, what is kept, and what they become."""

from __future__ import annotations

from pathlib import Path

import pytest
import run_folder
from django.test import Client
from labelled_project import SCRIPT

from heedful.opinions import CORRECTION, PERSON, merged, preferences_of, tally, without
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


def test_who_goes_back_to_the_first_correction_or_thumb_is_heard(chat: Chat, boss: Client) -> None:
    """In the records, and on the page."""
    reply = chat.turns.get().replies.get(side="aligned")
    exported = []
    for text in ("Come in.", "Who's there?", "Come in."):
        boss.post(f"/chat/{chat.pk}/correct/{reply.pk}/", {"text": text})
        exported.append(chatting.records())
    assert [preferences_of(found)[0].chosen for found in exported] == ["Come in.", "Who's there?", "Come in."]
    # As an update reads them that learned the first, the second, or both.
    first, second, third = exported
    assert preferences_of(merged(exported))[0].chosen == "Come in."
    assert [one.ranks for one in without(third, merged([first, second])).judgements] == [third.judgements[0].ranks]
    assert without(third, first).judgements == []
    for value in "101":
        boss.post(f"/chat/{chat.pk}/thumb/{reply.pk}/", {"value": value})
    found = chatting.records()
    assert [vote.value for vote in found.votes] == [1]
    assert tally(found)[found.votes[0].completion_id] == 1
    page = boss.get(f"/chat/{chat.pk}/").content.decode()
    assert 'aria-pressed="true" aria-label="Thumbs up for aligned"' in page
    assert '<textarea name="text" rows="3" maxlength="8000" required dir="auto">Come in.</textarea>' in page


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
