"""An update hears what was said in the web's chat, without an export between them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from in_process import assert_told, heedful

from heedful.opinions import FOLDER, read_opinions
from heedful.talking import Answered
from heedful.web import home
from heedful.web.labelling.models import User
from heedful.web.runs import chatting
from heedful.web.runs.models import Chat, Turn

SMALL = ("--set", "kto.min_per_mark=2", "--set", "kto.epochs=1", "--set", "update.margin=9.0")


@pytest.fixture
def labels(tmp_path: Path, db: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a server. Its database is the tests' own, which Django has been told of before."""
    for variable in (home.HOME, home.DATABASE):
        monkeypatch.setenv(variable, "")
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / home.NAME).touch()
    return folder


def chat(policy: Path, texts: list[tuple[str, int]], person: User) -> None:
    """Answers of the policy, each with the person's thumb."""
    made = Chat.objects.create(owner=person, run="by any name", folder=str(policy.resolve()), base="tiny")
    for number, (text, thumb) in enumerate(texts, start=1):
        turn = Turn.objects.create(chat=made, number=number, said="Hello")
        chatting._store(turn.pk, {"aligned": Answered(text, True, "ppo-0-1")}, "")
        chatting.vote(turn.replies.get(), person, thumb)
    chatting.correct(made.turns.get(number=1).replies.get(), person, "It should have been this.")


def test_an_update_learns_from_the_webs_chat(aligned: Path, labels: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(aligned, run)
    ada = User.objects.create_user("ada", password="quiet-harbour-91")
    chat(run / "ppo" / "policy", [("Come in.", 0), ("Abide.", 1), ("Zwy.", 0), ("A bad lad.", 1)], ada)
    chat(aligned / "ppo" / "policy", [("Of another run.", 1)], ada)
    assert_told(heedful("update", run), "nothing was said", f"{run / FOLDER}, which is not there", "--home LABELS")
    done = heedful("update", run, "--home", labels, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "learned from 4 votes and 1 corrections" in done.stdout
    heard = read_opinions(run / "versions" / "1" / FOLDER)
    assert {one.text for one in heard.completions} == {"Come in.", "Abide.", "Zwy.", "A bad lad.", "It should have been this."}
    assert heard == chatting.records(run=run), "as the export has them"
    # What was promoted has learned it; said once, it is not learned again.
    assert_told(heedful("update", run, "--home", labels), f"the web's chats of {labels} (5)", "that version 1 has not")


def test_a_database_of_the_environment_is_heard_only_beside_home(
    aligned: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(home.DATABASE, "postgres://ada:secret@127.0.0.1:1/chats?sslmode=require")
    unasked = heedful("update", aligned)
    assert_told(unasked, "nothing was said", f"looked for thumbs and corrections in {aligned / FOLDER}, which is not there")
    (labels / home.NAME).unlink()
    asked = heedful("update", aligned, "--home", labels)
    assert_told(asked, "nothing was said", "the web's chats of postgres://ada@127.0.0.1:1/chats (0)")
    assert "secret" not in asked.stderr


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgres://ada:p@ss:w@host:5432/name", "postgres://ada@host:5432/name"),
        ("postgres://host/name?password=secret", "postgres://host/name"),
        ("ada:secret@host/name", "--database"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert home.without_password(address) == shown


def test_a_folder_of_no_server_is_named(aligned: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert_told(heedful("update", aligned, "--home", absent), f"{absent}: holds no labels.sqlite3; name the folder")
    assert_told(heedful("label", "export-chat", "--home", absent, "--output", tmp_path / "out"), "holds no labels.sqlite3")
    assert not absent.exists()
