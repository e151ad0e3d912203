"""Roles, lost passwords, closed accounts, invitations taken back, and who had a say."""

from __future__ import annotations

from django.test import Client
from django.urls import reverse
from labelled_project import COMPLETIONS, PASSWORD, PROMPTS
from labelling import label_all

from heedful.web.labelling import coverage, invitations
from heedful.web.labelling.files import Task, create_project, judgements_of
from heedful.web.labelling.models import AuditEntry, Handout, Invitation, Project, User

ANOTHER = "calm-mountain-17"


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def log_in(name: str, password: str) -> int:
    return Client().post(reverse("login"), {"username": name, "password": password}).status_code


def link_in(page: bytes) -> str:
    return page.decode().partition('id="link">')[2].partition("<")[0]


def test_a_manager_has_one_project(project: Project, labelers: list[User], admin: User) -> None:
    other = create_project("Another", PROMPTS, COMPLETIONS, Task())
    page = logged_in(admin).post(reverse("invite", args=[project.slug]), {"role": "manager"}).content
    client = Client()
    fields = {"username": "mia", "password1": PASSWORD, "password2": PASSWORD}
    assert client.post(link_in(page), fields).status_code == 302
    mia = User.objects.get(username="mia")
    assert (mia.is_staff, list(mia.managed.all()), list(mia.projects.all())) == (False, [project], [])
    listed = client.get(reverse("projects")).content.decode()
    assert "My house" in listed
    assert "Another" not in listed
    assert "New project" not in listed
    for name in ("project", "quality", "export", "handouts", "edit-instructions"):
        assert client.get(reverse(name, args=[project.slug])).status_code == 200, name
        assert client.get(reverse(name, args=[other.slug])).status_code == 403, name
        assert client.get(reverse(name, args=["no-such-project"])).status_code == 403, name
    assert client.post(reverse("invite", args=[project.slug])).status_code == 200
    assert client.post(reverse("leave-out", args=[project.slug, labelers[0].pk]), {"counted": "0"}).status_code == 302
    assert project.left_out.get() == labelers[0]
    for name in ("person", "password-link", "unlock", "let-in", "delete-labeler"):
        assert client.post(reverse(name, args=[labelers[0].pk])).status_code == 403, name
    assert client.post(reverse("projects")).status_code == 403
    assert client.post(reverse("invite-admin")).status_code == 403
    assert client.get(reverse("label", args=[project.slug])).status_code == 404, "to manage is not to label"


def test_a_lost_password(project: Project, labelers: list[User], admin: User) -> None:
    boss, gone = logged_in(admin), logged_in(labelers[0])
    first, link = (link_in(boss.post(reverse("password-link", args=[labelers[0].pk])).content) for _ in range(2))
    assert Client().get(first).status_code == 410, "the earlier one is void"
    for _ in range(12):
        log_in("labeler-0", "wrong")
    assert log_in("labeler-0", PASSWORD) == 429
    page = Client().get(link).content.decode()
    assert "New password for labeler-0" in page
    assert Client().post(link, {"new_password1": "12345678", "new_password2": "12345678"}).status_code == 200
    assert Client().post(link, {"new_password1": ANOTHER, "new_password2": ANOTHER})["Location"] == reverse("login")
    assert log_in("labeler-0", PASSWORD) == 200, "the old one opens nothing"
    assert log_in("labeler-0", ANOTHER) == 302, "and it is unlocked"
    assert gone.get(reverse("home")).status_code == 302, "who was in with the old one is out"
    assert Client().get(link).status_code == 410
    labelers[0].refresh_from_db()
    assert not labelers[0].is_staff


def test_unlocking(labelers: list[User], admin: User) -> None:
    for _ in range(12):
        log_in("labeler-0", "wrong")
    assert log_in("labeler-0", PASSWORD) == 429
    logged_in(admin).post(reverse("unlock", args=[labelers[0].pk]))
    assert log_in("labeler-0", PASSWORD) == 302


def test_a_closed_account(project: Project, labelers: list[User], admin: User) -> None:
    label_all(project, labelers[0])
    boss, client = logged_in(admin), logged_in(labelers[0])
    address = reverse("let-in", args=[labelers[0].pk])
    boss.post(address, {"active": "0"})
    assert client.get(reverse("home")).status_code == 302
    assert log_in("labeler-0", PASSWORD) == 200
    assert len(list(judgements_of(project))) == 4
    boss.post(address, {"active": "1"})
    assert log_in("labeler-0", PASSWORD) == 302
    boss.post(reverse("let-in", args=[admin.pk]), {"active": "0"})
    admin.refresh_from_db()
    assert admin.is_active, "not oneself"
    actions = AuditEntry.objects.filter(subject="labeler-0").values_list("action", flat=True)
    assert set(actions) == {"closed the account of", "opened the account of"}


def test_removing_a_member(project: Project, labelers: list[User], admin: User) -> None:
    client = logged_in(labelers[0])
    client.get(reverse("label", args=[project.slug]))
    logged_in(admin).post(reverse("remove", args=[project.slug, labelers[0].pk]))
    assert client.get(reverse("label", args=[project.slug])).status_code == 404
    assert not Handout.objects.exists()
    assert User.objects.filter(username="labeler-0").exists()


def test_an_invitation_taken_back(project: Project, admin: User) -> None:
    boss, token = logged_in(admin), invitations.invite(project)
    other = create_project("Another", PROMPTS, COMPLETIONS, Task())
    pk = Invitation.objects.get().pk
    assert "Revoke" in boss.get(reverse("project", args=[project.slug])).content.decode()
    boss.post(reverse("revoke", args=[other.slug, pk]))
    assert Client().get(reverse("join", args=[token])).status_code == 200, "another project's it is not"
    boss.post(reverse("revoke", args=[project.slug, pk]))
    assert Client().get(reverse("join", args=[token])).status_code == 410


def test_coverage_hides_the_few(project: Project, labelers: list[User], admin: User) -> None:
    for number, labeler in enumerate(labelers):
        labeler.country = ("Peru", " peru", "PERU ", "Ghana", "")[number]
        labeler.save()
    label_all(project, labelers[0])
    ((title, rows),) = coverage.tables(project)
    assert title == "Country"
    assert [tuple(row) for row in rows] == [("Peru", 3, 4, 1.0), ("others", 2, 0, 0.0)]
    page = logged_in(admin).get(reverse("project", args=[project.slug])).content.decode()
    assert "Peru" in page
    assert "Ghana" not in page
    User.objects.update(country="")
    assert coverage.tables(project) == []
