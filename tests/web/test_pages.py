"""The pages around the ranking: instructions and their versions, management, quality, export, commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from axes.models import AccessAttempt
from django.test import Client
from django.urls import reverse
from label_server import command
from labelled_project import COMPLETIONS, PROMPTS
from labelling import fields, label_all, send

from heedful.feedback.labelers import labeler_quality
from heedful.records import Judgement as Record
from heedful.records import parse_line
from heedful.store import write_jsonl
from heedful.web.labelling import assignment, background, files, people, quality
from heedful.web.labelling.models import AuditEntry, Judgement, Project, User
from heedful.web.labelling.views import manage


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def test_instructions_are_read_before_the_first_set_and_after_each_change(
    project: Project, labelers: list[User], admin: User
) -> None:
    newcomer = User.objects.create_user("newcomer", password="quiet-harbour-91")
    project.members.add(newcomer)
    client, page = logged_in(newcomer), reverse("label", args=[project.slug])
    assert client.get(page)["Location"] == reverse("instructions", args=[project.slug])
    text = client.get(reverse("instructions", args=[project.slug])).content.decode()
    assert "Correct comes first." in text
    assert "<strong>helpfulness</strong>" in text
    assert client.post(reverse("instructions", args=[project.slug]), {"version": 1})["Location"] == page
    assert client.get(page).status_code == 200

    edit = reverse("edit-instructions", args=[project.slug])
    boss = logged_in(admin)
    boss.post(edit, {"version": 1, "text": project.instructions.get().text.replace("\n", "\r\n")})
    assert project.instructions.count() == 1, "the same text is no new version"
    boss.post(edit, {"version": 1, "text": "Rank *by length*."})
    assert "Somebody else" in boss.post(edit, {"version": 1, "text": "Rank by age."}).content.decode()
    assert [found.version for found in project.instructions.order_by("version")] == [1, 2]
    assert client.get(page)["Location"] == reverse("instructions", args=[project.slug])
    assert "<em>by length</em>" in client.get(reverse("instructions", args=[project.slug])).content.decode()
    client.post(reverse("instructions", args=[project.slug]), {"version": 1})
    assert client.get(page)["Location"] == reverse("instructions", args=[project.slug]), "another version was read"
    client.post(reverse("instructions", args=[project.slug]), {"version": 2})
    shown = client.get(page).content.decode()
    form = dict(re.findall(r'name="(set|nonce|version)" value="(\w+)"', shown))
    whole = fields(newcomer.handouts.get())
    assert form == {name: str(whole[name]) for name in ("set", "nonce", "version")}
    assert client.post(page, whole)["Location"] == page
    assert Judgement.objects.get().instructions.version == 2


def test_a_refused_answer_says_why(project: Project, labelers: list[User]) -> None:
    client, page = logged_in(labelers[0]), reverse("label", args=[project.slug])
    client.get(page)
    whole = fields(labelers[0].handouts.get())
    refused = client.post(page, whole | {"answer": "{}"}, follow=True).content.decode()
    assert "Every answer is judged before a set is sent" in refused
    assert "not in your hands" in client.post(page, {"set": "9" * 30}, follow=True).content.decode()
    assert "not in your hands" in client.post(page, {"set": "²"}, follow=True).content.decode()
    assert not Judgement.objects.exists()
    assert "already" not in client.post(page, whole, follow=True).content.decode()
    assert "already; that one counts" in client.post(page, whole, follow=True).content.decode()


def test_quality_and_export_are_what_the_functions_say(
    project: Project, labelers: list[User], admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manage, "PATIENCE_S", 60)
    boss = logged_in(admin)
    assert "No judgements yet" in boss.get(reverse("quality", args=[project.slug])).content.decode()
    for labeler in labelers[:3]:
        label_all(project, labeler)
    page = boss.get(reverse("quality", args=[project.slug])).content.decode()
    records = list(files.judgements_of(project))
    for known in labeler_quality(records):
        row = re.search(rf"<td>{known.labeler}</td>(.*?)</tr>", page, re.DOTALL)
        assert row
        assert re.findall(r">([^<>]+)</td>", row[1])[:1] == ["4"]
        assert f"{known.agreement:.2f}" in row[1]
        assert known.verdict in row[1]
    answer = boss.get(reverse("export", args=[project.slug]))
    lines = answer.content.decode().splitlines()
    assert [parse_line(line, Record, "here") for line in lines] == records
    assert len(records) == 12
    assert AuditEntry.objects.filter(who="boss", action="exported 12 judgements").count() == 1


def test_what_is_stale_and_what_was_done_stay_in_sight(project: Project, labelers: list[User], admin: User) -> None:
    label_all(project, labelers[0])
    boss = logged_in(admin)
    boss.get(reverse("export", args=[project.slug]))
    people.count_in(project, labelers[0], admin, counted=False)
    people.count_in(project, labelers[0], admin, counted=True)
    for _ in range(120):
        boss.get(reverse("export", args=[project.slug]))
    shown = boss.get(reverse("project", args=[project.slug])).content.decode()
    assert shown.count("<strong>Stale</strong>") == 1
    assert shown.count("judgements, by boss") == 6, "and the latest five"
    assert "took back" not in shown
    log = reverse("project-log", args=[project.slug])
    assert "took back labeler-0" in boss.get(log, {"page": 2}).content.decode()
    assert "Page 1 of 2" in boss.get(log).content.decode()
    assert boss.get(reverse("log")).status_code == 200


def test_sets_that_everybody_skipped_are_told(project: Project, labelers: list[User], admin: User) -> None:
    boss = logged_in(admin)
    first = assignment.next_handout(project, labelers[0])
    assert first is not None
    address = reverse("project", args=[project.slug])
    for labeler in labelers:
        while (handout := assignment.next_handout(project, labeler)) is not None:
            assignment.skip(handout) if handout.set == first.set else send(handout)
        told = "<strong>1 set</strong> nobody is left for" in boss.get(address).content.decode()
        assert told == (labeler == labelers[-1])
    boss.post(reverse("hand-out-again", args=[project.slug]))
    again = assignment.next_handout(project, labelers[0])
    assert again is not None
    assert again.set == first.set
    assert "nobody is left for" not in boss.get(address).content.decode()


def test_while_quality_is_computed_older_figures_are_shown(
    project: Project, labelers: list[User], admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is held up by a job before; meanwhile the page says what it shows."""
    boss, address = logged_in(admin), reverse("quality", args=[project.slug])
    label_all(project, labelers[0])
    monkeypatch.setattr(manage, "PATIENCE_S", 60)
    assert "over 4 judgements" in boss.get(address).content.decode()
    label_all(project, labelers[1])
    monkeypatch.setattr(manage, "PATIENCE_S", 0.05)
    held = background.start(time.sleep, 2)
    began = time.monotonic()
    shown = boss.get(address).content.decode()
    assert time.monotonic() - began < 1.5
    assert "over 4 judgements" in shown
    assert "newer ones are being computed" in shown
    held.wait()
    monkeypatch.setattr(manage, "PATIENCE_S", 60)
    shown = boss.get(address).content.decode()
    assert "over 8 judgements" in shown
    assert "being computed" not in shown
    assert "Agreement of every two" in shown


def test_labelers_who_go_on_keep_nobody_waiting(
    project: Project, labelers: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judgements are others whenever one looks; the figures are of when one asked."""
    label_all(project, labelers[0])
    states = iter(range(100))
    monkeypatch.setattr(quality, "_state", lambda project: f"{next(states)}")
    now = quality.shown(project, 60)
    assert now.quality is not None
    assert not now.pending
    assert next(states) < 4


def test_a_computation_whose_process_was_killed_is_begun_anew(
    project: Project, labelers: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    label_all(project, labelers[0])
    worker = background.start(os.getpid).get()
    background.start(time.sleep, 60)
    assert quality.shown(project, 0.1).pending
    os.kill(worker, signal.SIGKILL)
    assert quality.shown(project, 0.1).pending, "nobody has noticed yet"
    monkeypatch.setattr(quality, "LOST_S", 0.0)
    assert quality.shown(project, 60).quality is not None


def test_a_deleted_labeler_is_in_no_figures_that_were_begun_before(
    project: Project, labelers: list[User], admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for labeler in labelers[:2]:
        label_all(project, labeler)
    held = background.start(time.sleep, 1)
    assert quality.shown(project, 0.01).pending
    people.delete(labelers[0], admin)
    held.wait()
    found = quality.shown(project, 60).quality
    assert found is not None
    assert [row.labeler for row in found.labelers] == ["labeler-1"]
    assert quality.shown(project, 0).quality == found


def test_pausing_and_going_on(project: Project, labelers: list[User], admin: User) -> None:
    boss, client, page = logged_in(admin), logged_in(labelers[0]), reverse("label", args=[project.slug])
    client.get(page)
    for _ in range(2):  # a double click is one
        boss.post(reverse("pause", args=[project.slug]), {"paused": "1"})
    assert "The project is paused" in client.get(page).content.decode()
    boss.post(reverse("pause", args=[project.slug]), {"paused": "0"})
    assert client.get(page).context["handout"] == labelers[0].handouts.get()


def test_the_profile_is_voluntary(project: Project, labelers: list[User]) -> None:
    client = logged_in(labelers[0])
    assert client.post(reverse("profile"), {})["Location"] == reverse("home")
    assert client.post(reverse("profile"), {"country": "Peru", "age_band": "25-34"})["Location"] == reverse("home")
    labelers[0].refresh_from_db()
    assert (labelers[0].country, labelers[0].language, labelers[0].age_band) == ("Peru", "", "25-34")
    assert client.post(reverse("profile"), {"age_band": "a hundred"}).status_code == 200


def label(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    verb, *rest = words
    return subprocess.run(command(verb, home, *rest), capture_output=True, text=True, check=False)


def test_the_commands(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    write_jsonl(tmp_path / "completions.jsonl", COMPLETIONS)
    given = ("--prompts", str(tmp_path / "prompts.jsonl"), "--completions", str(tmp_path / "completions.jsonl"), "--json")
    home = tmp_path / "labels"
    made = label("import", "--project", "house", *given, home=home)
    assert json.loads(made.stdout) == {"project": "house", "sets": 4, "gold_sets": 0, "identical": 0}, made.stderr
    again = label("import", "--project", "house", *given, home=home)
    assert (again.returncode, again.stderr) == (1, "error: project 'house': there is one of that name; choose another name\n")
    invited = json.loads(label("users invite", "--project", "house", "--url", "https://x.example/", "--json", home=home).stdout)
    assert re.fullmatch(r"https://x\.example/join/[\w-]{43}/", invited["link"])
    assert label("users invite", home=home).returncode == 2
    status = json.loads(label("status", "--json", home=home).stdout)
    assert status["projects"] == [{"project": "house", "judgements": 0, "wanted": 12, "finished_sets": 0, "sets": 4}]
    assert json.loads(label("users list", "--json", home=home).stdout) == {"users": []}
    unknown = label("export", "--project", "hose", "--output", str(tmp_path / "j.jsonl"), home=home)
    assert unknown.returncode == 1
    assert "project 'hose' does not exist; there are: house" in unknown.stderr
    assert all(len(line) <= 80 for line in label("status", home=home).stdout.splitlines())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("status", "--database", "postgres://nobody@127.0.0.1:1/none"), "the database cannot be used"),
        (("status", "--database", "nonsense"), "--database"),
        (("serve", "--host", "192.0.2.1", "--port", "1"), "cannot be listened on"),
        (("serve", "--host", "no-such-host.invalid"), "cannot be listened on"),
    ],
)
def test_what_cannot_be_reached_is_said(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = label(*words, home=tmp_path / "labels")
    assert done.returncode == 1, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = label("status", home=tmp_path / "file" / "labels")
    assert (done.returncode, "cannot be written" in done.stderr) == (1, True), done.stderr


def test_leaving_a_labeler_out_is_reversible(project: Project, labelers: list[User], admin: User) -> None:
    for labeler in labelers[:3]:
        label_all(project, labeler)
    boss = logged_in(admin)
    export, change = reverse("export", args=[project.slug]), reverse("leave-out", args=[project.slug, labelers[0].pk])
    everything = boss.get(export).content
    assert assignment.next_handout(project, labelers[3]) is None
    for _ in range(2):
        boss.post(change, {"counted": "0"})
    assert {judgement.labeler for judgement in files.judgements_of(project)} == {"labeler-1", "labeler-2"}
    assert assignment.standing(project).judgements == 8
    assert project.exports.get().stale
    assert assignment.next_handout(project, labelers[3]) is not None, "the places are free again"
    page = boss.get(reverse("quality", args=[project.slug])).content.decode()
    assert "<td>labeler-0</td>" not in page
    assert "Take back labeler-0" in page
    boss.post(change, {"counted": "1"})
    assert boss.get(export).content == everything
    assert assignment.standing(project).judgements == 12
    listed = boss.get(reverse("project", args=[project.slug])).content.decode()
    assert listed.count("<strong>Stale</strong>") == 1
    assert "took back labeler-0" in listed


def test_deleting_a_labeler_leaves_nothing_of_them(project: Project, labelers: list[User], admin: User) -> None:
    for labeler in labelers[:3]:
        label_all(project, labeler)
    gone, boss = logged_in(labelers[0]), logged_in(admin)
    assert gone.get(reverse("home")).status_code == 200
    boss.get(reverse("export", args=[project.slug]))
    boss.post(reverse("leave-out", args=[project.slug, labelers[0].pk]), {"counted": "0"})
    Client().post(reverse("login"), {"username": "labeler-0", "password": "wrong"})
    assert AccessAttempt.objects.filter(username="labeler-0").exists()
    address = reverse("delete-labeler", args=[labelers[0].pk])
    assert "4 judgements" in boss.get(address).content.decode()
    boss.post(address)
    assert not User.objects.filter(username="labeler-0").exists()
    assert {judgement.labeler for judgement in files.judgements_of(project, left_out=True)} == {"labeler-1", "labeler-2"}
    assert gone.get(reverse("home")).status_code == 302
    assert project.exports.get().stale
    assert "labeler-0" not in boss.get(reverse("project", args=[project.slug])).content.decode()
    assert "a deleted labeler" in boss.get(reverse("project", args=[project.slug])).content.decode()
    assert not AuditEntry.objects.filter(subject="labeler-0").exists()
    assert not AccessAttempt.objects.exists()
    boss.post(reverse("delete-labeler", args=[admin.pk]))
    assert User.objects.filter(username="boss").exists(), "not oneself"
