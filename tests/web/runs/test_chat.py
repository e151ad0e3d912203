"""The chat's rules: whose it is, what a thumb becomes, and turns that nobody answers any more."""

from __future__ import annotations

import io
import json
import queue
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_folder
import slow_answer
from django.test import Client
from labelled_project import PASSWORD

from heedful.records import Completion, Prompt, Vote, read_jsonl
from heedful.store import write_json
from heedful.talking import Answered
from heedful.version_log import Versions
from heedful.web.labelling.models import User
from heedful.web.labelling.people import delete
from heedful.web.runs import chatting
from heedful.web.runs.answering import ENDED, FAILED, Answering
from heedful.web.runs.catalogue import Found
from heedful.web.runs.models import Chat, Reply, Thumb, Turn


@pytest.fixture(autouse=True)
def offered() -> Iterator[None]:
    """Answers are put in by hand below; whoever is asked in their place does not answer within the test."""
    chatting.offer(slow_answer.patient)
    yield
    if chatting._answering is not None and chatting._answering.process is not None:
        chatting._answering.process.kill()
    chatting._answering = None
    chatting._pending.clear()


@pytest.fixture
def chat(runs: Path, admin: User) -> Chat:
    run = run_folder.make(runs / "first", state="done")
    write_json(run / "ppo" / "policy" / "heedful.json", {"base": "smollm2-135m", "policy_version": "ppo-0-9"})
    made = chatting.begin(admin, Found("first", run), temperature=0.5, max_new_tokens=30)
    assert made is not None
    return made


def answered(chat: Chat, said: str, base: str, aligned: str, *, finished: bool = True) -> Turn:
    turn = Turn.objects.create(chat=chat, number=chat.turns.count() + 1, said=said)
    chatting._store(turn.pk, {"base": Answered(base, True, "base"), "aligned": Answered(aligned, finished, "ppo-0-9")}, "")
    return turn


def test_thumbs_become_votes_with_all_that_was_said_before(chat: Chat, boss: Client, tmp_path: Path, admin: User) -> None:
    answered(chat, "Knock, knock.", "Clap, clap.", "Who's there?")
    second = answered(chat, "Boo.", "Boo.", "Boo who?", finished=False)
    reply = second.replies.get(side="aligned")
    for value in ("0", "1"):  # changed my mind: the latest counts, and both are kept
        assert boss.post(f"/chat/{chat.pk}/thumb/{reply.pk}/", {"value": value}).status_code == 302
    assert Thumb.objects.count() == 2
    assert 'aria-pressed="true" aria-label="Thumbs up for aligned"' in boss.get(f"/chat/{chat.pk}/").content.decode()
    packed = zipfile.ZipFile(io.BytesIO(boss.get("/chat/votes.zip").content))
    packed.extractall(tmp_path / "votes")
    (prompt,) = read_jsonl(tmp_path / "votes" / "prompts.jsonl", Prompt)
    (completion,) = read_jsonl(tmp_path / "votes" / "completions.jsonl", Completion)
    (vote,) = read_jsonl(tmp_path / "votes" / "votes.jsonl", Vote)
    assert [(m.role, m.content) for m in prompt.messages] == [
        ("user", "Knock, knock."),
        ("assistant", "Who's there?"),
        ("user", "Boo."),
    ]
    assert (completion.prompt_id, completion.text, completion.finish) == (prompt.id, "Boo who?", "length")
    assert (completion.model, completion.policy_version) == ("smollm2-135m", "ppo-0-9")
    assert (completion.sampling.temperature, completion.sampling.max_new_tokens) == (0.5, 30)
    assert (vote.completion_id, vote.prompt_id, vote.labeler, vote.value) == (completion.id, prompt.id, "boss", 1)


def test_the_page_says_which_version_answers(chat: Chat, boss: Client, runs: Path) -> None:
    assert "keeps the policy" not in boss.get(f"/chat/{chat.pk}/").content.decode()
    newer = runs / "first" / "versions" / "1" / "kto" / "policy"
    write_json(newer / "heedful.json", {"base": "smollm2-135m", "policy_version": "1-kto"})
    versions = Versions(runs / "first")
    versions.add(newer, parent=versions.in_use, promoted=True, why_not=[], method="kto", num_new=2)
    page = boss.get(f"/chat/{chat.pk}/").content.decode()
    assert "version 0 answers; later, and not answering: version 1 (in use). A chat keeps the policy" in page
    begun = chatting.begin(chat.owner, Found("first", runs / "first"), temperature=0.0, max_new_tokens=8)
    assert begun is not None
    assert "version 1 answers. A chat" in boss.get(f"/chat/{begun.pk}/").content.decode()


@pytest.mark.parametrize("value", ["2", "-1", "", "up"])
def test_a_thumb_is_up_or_down(chat: Chat, boss: Client, value: str) -> None:
    reply = answered(chat, "Hello.", "Hi.", "Hello.").replies.first()
    assert reply is not None
    assert boss.post(f"/chat/{chat.pk}/thumb/{reply.pk}/", {"value": value}).status_code == 400
    assert not Thumb.objects.exists()


def test_nobody_reads_another_ones_chat(chat: Chat, client: Client) -> None:
    reply = answered(chat, "Hello.", "Hi.", "Hello.").replies.first()
    assert reply is not None
    client.force_login(User.objects.create_user("other", password=PASSWORD, is_staff=True))
    for page in ("", "turns/", "pending/"):
        assert client.get(f"/chat/{chat.pk}/{page}").status_code == 404
    for page in ("say/", "delete/", f"thumb/{reply.pk}/"):
        assert client.post(f"/chat/{chat.pk}/{page}", {"said": "x", "value": "1"}).status_code == 404
    client.force_login(User.objects.create_user("labeler", password=PASSWORD))
    for page in ("/chat/", "/chat/votes.zip", f"/chat/{chat.pk}/"):
        assert client.get(page).status_code == 403


def test_one_question_at_a_time_and_none_that_is_empty(chat: Chat, boss: Client) -> None:
    assert "nothing in the message" in boss.post(f"/chat/{chat.pk}/say/", {"said": " \n"}, follow=True).content.decode()
    shown = boss.post(f"/chat/{chat.pk}/say/", {"said": "First"}, follow=True).content.decode()
    assert "Answering ..." in shown
    assert json.loads(boss.get(f"/chat/{chat.pk}/pending/").content) == {"pending": True}
    assert chat.turns.get().problem == ""
    assert "still being answered" in boss.post(f"/chat/{chat.pk}/say/", {"said": "Second"}, follow=True).content.decode()
    assert [turn.said for turn in chat.turns.all()] == ["First"]


def test_lines_end_as_everywhere_and_nothing_is_cut(chat: Chat, boss: Client) -> None:
    too_long = boss.post(f"/chat/{chat.pk}/say/", {"said": "x" * 8_001}, follow=True).content.decode()
    assert "8001 characters; 8000 are the most" in too_long
    assert not chat.turns.exists()
    boss.post(f"/chat/{chat.pk}/say/", {"said": "one\r\ntwo"})
    assert chat.turns.get().said == "one\ntwo"


def test_a_turn_of_another_server_is_waited_for(chat: Chat, boss: Client) -> None:
    turn = Turn.objects.create(chat=chat, number=1, said="Are you there?")
    assert "Answering ..." in boss.get(f"/chat/{chat.pk}/").content.decode()
    Turn.objects.filter(pk=turn.pk).update(asked_at=turn.asked_at - chatting.PATIENCE)
    assert "The server was stopped" in boss.get(f"/chat/{chat.pk}/").content.decode()
    chatting._store(turn.pk, {"base": Answered("Late.", True, "base")}, "")
    assert "The server was stopped" not in boss.get(f"/chat/{chat.pk}/").content.decode()


def test_a_turn_that_an_earlier_server_left_is_told(chat: Chat, boss: Client) -> None:
    turn = Turn.objects.create(chat=chat, number=1, said="Are you there?")
    chatting.offer(slow_answer.patient)  # a new server
    shown = boss.get(f"/chat/{chat.pk}/").content.decode()
    assert "The server was stopped before there was an answer" in shown
    assert "Answering ..." not in shown
    assert turn.replies.count() == 0
    turn = answered(chat, "And now?", "Yes.", "Yes!")
    assert chatting.histories(Turn.objects.create(chat=chat, number=3, said="Good.")) == {
        "base": [("user", "And now?"), ("assistant", "Yes.")],
        "aligned": [("user", "And now?"), ("assistant", "Yes!")],
    }, "an unanswered turn is in no history"
    assert turn.number == 2


def test_what_went_wrong_is_told_and_the_next_question_is_answered() -> None:
    told: queue.Queue[tuple[Any, str]] = queue.Queue()
    answering = Answering(slow_answer.moody)
    for said in ("fail", "break", "one", "two", "end", "three"):
        answering.ask(("policy", "base", {}, said), lambda *how: told.put(how))
    heard = [told.get(timeout=60) for _ in range(6)]
    assert heard[0] == (None, "smollm2: no such model")
    assert heard[1] == (None, FAILED)
    assert heard[4] == (None, ENDED)
    first, second, third = (heard[place][0]["aligned"].text.partition(" by ")[::2] for place in (2, 3, 5))
    assert [first[0], second[0], third[0]] == ["one", "two", "three"]
    assert first[1] == second[1] != third[1], "one process, and after its end another"
    answering.process.kill()


def test_a_question_without_an_answer_says_why(chat: Chat, boss: Client) -> None:
    turn = Turn.objects.create(chat=chat, number=1, said="Hello?")
    chatting._store(turn.pk, None, "smollm2: no such model")
    assert "smollm2: no such model" in boss.get(f"/chat/{chat.pk}/").content.decode()


def test_an_answer_to_a_deleted_chat_is_dropped(chat: Chat, boss: Client) -> None:
    turn = Turn.objects.create(chat=chat, number=1, said="Hello?")
    assert "is deleted" in boss.post(f"/chat/{chat.pk}/delete/", follow=True).content.decode()
    chatting._store(turn.pk, {"base": Answered("Hi.", True, "base")}, "")
    assert not Reply.objects.exists()


def test_a_deleted_persons_chats_go_with_them(chat: Chat, admin: User) -> None:
    reply = answered(chat, "Hello.", "Hi.", "Hello.").replies.first()
    assert reply is not None
    chatting.vote(reply, admin, 1)
    delete(admin, User.objects.create_user("chief", password=PASSWORD, is_staff=True))
    assert not Chat.objects.exists()
    assert not Thumb.objects.exists()


def test_what_models_say_is_text(chat: Chat, boss: Client) -> None:
    answered(chat, "<b>Hello</b>", "<script>alert(1)</script>", "")
    shown = boss.get(f"/chat/{chat.pk}/").content.decode()
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    assert "(nothing)" in shown


def test_a_run_without_a_policy_is_no_partner(runs: Path, boss: Client, admin: User) -> None:
    run = run_folder.make(runs / "first")
    assert "has saved a policy yet" in boss.get("/chat/").content.decode()
    assert chatting.begin(admin, Found("first", run), temperature=0, max_new_tokens=8) is None
    (run / "ppo" / "policy").mkdir(parents=True)
    (run / "ppo" / "policy" / "heedful.json").write_text("{")
    assert "has saved a policy yet" in boss.get("/chat/").content.decode()


def test_a_server_of_labelling_alone_has_no_chat(runs: Path, boss: Client) -> None:
    chatting._answering = None
    assert boss.get("/chat/").status_code == 404
    assert 'href="/chat/"' not in boss.get("/runs/").content.decode()
