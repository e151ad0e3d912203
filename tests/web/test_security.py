"""Nobody gets in uninvited, sees what is not theirs, or is fooled by what a model wrote."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse
from django.utils import timezone
from labelled_project import COMPLETIONS, PASSWORD, PROMPTS, SCRIPT

from heedful.web.labelling import invitations
from heedful.web.labelling.files import Task, create_project
from heedful.web.labelling.forms import JoinForm
from heedful.web.labelling.markup import as_html
from heedful.web.labelling.models import Invitation, Project, User
from heedful.web.serve import first_admin_link


def logged_in(user: User, **options: bool) -> Client:
    client = Client(**options)  # type: ignore[arg-type]
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def addresses(project: Project) -> list[str]:
    """Of all pages, with this project's name and an invitation, a run and a chat that do not exist."""
    found = []
    known = {"slug": project.slug, "token": "none", "labeler": 0, "invitation": 0, "number": 0}
    known |= {"name": "no/run", "chat": UUID(int=0), "reply": 0}
    for pattern in get_resolver().url_patterns:
        if isinstance(pattern, URLPattern):  # the rest is the API's, see test_api.py
            given = {name: known[name] for name in pattern.pattern.converters}
            found.append(reverse(str(pattern.name), kwargs=given))
    return found


def test_strangers_reach_the_login_alone(project: Project) -> None:
    for address in addresses(project):
        for answer in (Client().get(address), Client().post(address)):
            if address == reverse("join", args=["none"]):
                assert answer.status_code == 410
            elif address != reverse("login"):
                assert answer.status_code == 302, address
                assert answer["Location"].startswith(reverse("login")), address


def test_labelers_do_not_reach_admin_pages(project: Project, labelers: list[User]) -> None:
    managed = [address for address in addresses(project) if address.startswith(("/manage/", "/runs/", "/chat/"))]
    assert len(managed) >= 30
    client = logged_in(labelers[0])
    for address in managed:
        assert client.get(address).status_code == 403, address
        assert client.post(address).status_code == 403, address


def test_other_peoples_projects_do_not_exist(project: Project) -> None:
    client = logged_in(User.objects.create_user("outsider", password=PASSWORD))
    for name in ("label", "instructions"):
        assert client.get(reverse(name, args=[project.slug])).status_code == 404
        assert client.post(reverse(name, args=[project.slug])).status_code == 404
    assert client.post(reverse("skip", args=[project.slug])).status_code == 404


def test_every_write_needs_a_csrf_token(project: Project, labelers: list[User], admin: User) -> None:
    token = invitations.invite(project)
    posted = [*addresses(project), reverse("join", args=[token])]
    for user in (labelers[0], admin):
        client = logged_in(user, enforce_csrf_checks=True)
        for address in posted:
            assert client.post(address).status_code == 403, address
    assert Client(enforce_csrf_checks=True).post(reverse("login")).status_code == 403


def test_model_output_stays_text_and_nameless(project: Project, labelers: list[User]) -> None:
    client = logged_in(labelers[0])
    seen = ""
    for _ in range(4):
        page = client.get(reverse("label", args=[project.slug])).content.decode()
        assert "secret-model" not in page
        assert not re.search(r"(hot|knock|wifi|odd)/\d", page), "an id tells the place in the file"
        assert 'onerror="' not in page
        seen += page
        found = re.search(r'name="set" value="(\d+)"', page)
        assert found
        client.post(reverse("skip", args=[project.slug]), {"set": found[1]})
    assert SCRIPT not in seen
    assert "&lt;script&gt;document.title" in seen
    scripts = [f'<script src="/static/labelling/{name}.js" defer>' for name in ("account", "label")]
    assert re.findall(r"<script[^>]*>", seen) == scripts * 4
    assert not re.search(r"<style|\sstyle=|\son\w+=\"", seen)


@pytest.mark.parametrize("text", [SCRIPT, "[x](javascript:alert(1))", "![x](https://elsewhere.example/x.png)", "<b onclick=x>"])
def test_instructions_are_markdown_without_markup(text: str) -> None:
    html = as_html(text)
    assert "<script" not in html
    assert 'href="javascript' not in html
    assert "<img" not in html
    assert "<b " not in html
    assert as_html("**yes**") == "<p><strong>yes</strong></p>\n"


def test_the_policy_on_content_is_strict(project: Project, labelers: list[User]) -> None:
    answer = logged_in(labelers[0]).get(reverse("label", args=[project.slug]))
    policy = dict(rule.strip().split(" ", 1) for rule in answer["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert "no-store" in answer["Cache-Control"]


def join(token: str, name: str = "ada", password: str = PASSWORD) -> int:
    fields = {"username": name, "password1": password, "password2": password}
    return Client().post(reverse("join", args=[token]), fields).status_code


def test_an_invitation_lets_one_person_in_once(project: Project) -> None:
    token = invitations.invite(project)
    assert not Invitation.objects.filter(token_hash__contains=token[:8]).exists(), "the token itself is kept by nobody"
    assert Client().get(reverse("join", args=[token])).status_code == 200
    assert join(token, password="12345678") == 200, "the form again: everybody's password"
    assert not User.objects.exists()
    assert join(token) == 302
    ada = User.objects.get(username="ada")
    assert list(ada.projects.all()) == [project]
    assert not ada.is_staff
    assert join(token, "bob") == 410
    assert Client().get(reverse("join", args=[token])).status_code == 410


def test_an_expired_invitation_is_refused(project: Project) -> None:
    token = invitations.invite(project)
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert join(token) == 410
    assert not User.objects.exists()


def test_an_admins_invitation_makes_an_admin_and_of_the_first_alone_nobody_speaks(db: None) -> None:
    assert join(invitations.invite(None, admin=True), "boss") == 302
    assert User.objects.get().is_staff


def test_the_right_password_opens_and_a_wrong_one_does_not(labelers: list[User]) -> None:
    client = Client()
    assert client.post(reverse("login"), {"username": "labeler-0", "password": "wrong"}).status_code == 200
    assert client.get(reverse("home")).status_code == 302
    assert client.post(reverse("login"), {"username": "labeler-0", "password": PASSWORD})["Location"] == reverse("home")
    assert client.get(reverse("home")).status_code == 200
    outside = Client().post(
        f"{reverse('login')}?next=https://elsewhere.example/", {"username": "labeler-0", "password": PASSWORD}
    )
    assert outside["Location"] == reverse("home")


def test_a_member_of_one_project_joins_another_with_the_same_account(project: Project, labelers: list[User]) -> None:
    other = create_project("Another", PROMPTS, COMPLETIONS, Task(criterion="honesty"))
    token, client = invitations.invite(other), logged_in(labelers[0])
    address = reverse("join", args=[token])
    assert "You are logged in as labeler-0" in client.get(address).content.decode()
    assert client.post(address)["Location"] == reverse("home")
    assert set(labelers[0].projects.all()) == {project, other}
    assert client.post(address).status_code == 410


def test_a_name_that_grows_when_normalised_is_refused(project: Project) -> None:
    assert join(invitations.invite(project), "\ufdfa" * 60) == 200
    assert not User.objects.exists()


def test_of_two_who_take_a_name_at_once_one_chooses_another(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [invitations.invite(project) for _ in range(2)]
    assert join(tokens[0]) == 302
    monkeypatch.setattr(JoinForm, "validate_unique", lambda self: None)  # as if the other's form was checked a moment before
    assert join(tokens[1]) == 200
    assert join(tokens[1], "bob") == 302


def test_a_start_without_an_admin_voids_the_links_of_earlier_ones(db: None) -> None:
    links = [first_admin_link("http://localhost") for _ in range(2)]
    first, last = (str(link).rstrip("/").rpartition("/")[2] for link in links)
    assert join(first) == 410
    assert join(last) == 302
    assert first_admin_link("http://localhost") is None


def test_login_is_throttled(labelers: list[User]) -> None:
    def attempt(password: str) -> int:
        return (
            Client(REMOTE_ADDR="127.0.0.9").post(reverse("login"), {"username": "labeler-0", "password": password}).status_code
        )

    codes = [attempt("wrong") for _ in range(12)]
    assert codes[0] == 200
    assert codes[-1] == 429
    assert attempt(PASSWORD) == 429, "even the right one, for a while"


def test_nobody_is_there_from_the_start(db: None) -> None:
    assert not User.objects.exists()


def test_the_key_is_made_for_each_folder_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    import subprocess
    import sys

    keys = []
    for name in ("a", "b"):
        home = tmp_path / name
        subprocess.run([sys.executable, "-m", "heedful.cli.app", "label", "status", "--home", str(home)], check=True)
        assert (home / "secret-key").stat().st_mode & 0o077 == 0
        keys.append((home / "secret-key").read_text())
    assert keys[0] != keys[1]
    assert len(keys[0]) > 50
