"""The API: nobody gets in without a token, a token does what its owner may, and what it does is what the pages do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import serializers
from django.test import Client
from django.utils import timezone
from labelled_project import COMPLETIONS, PASSWORD, PROMPTS
from labelling import label_all
from pydantic_core import to_jsonable_python

from heedful.errors import DataError
from heedful.records import Judgement as Record
from heedful.records import parse_line
from heedful.web.labelling import api as api_module
from heedful.web.labelling import background, files, invitations, people, quality, request_body, tokens
from heedful.web.labelling.api import api, routes
from heedful.web.labelling.assignment import standing
from heedful.web.labelling.files import Task, create_project
from heedful.web.labelling.models import ApiToken, AuditEntry, Export, Judgement, Project, User

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
MANAGED = [
    ("GET", "projects/my-house", None),
    ("POST", "projects/my-house/pause", {"paused": True}),
    ("POST", "projects/my-house/invitations", None),
    ("GET", "projects/my-house/judgements", None),
    ("GET", "projects/my-house/sets", None),
    ("GET", "projects/my-house/quality", None),
    ("GET", "projects/my-house/labelers", None),
    ("POST", "projects/my-house/labelers/labeler-0/counted", {"counted": False}),
]


def call(method: str, path: str, token: str | None, body: Any = None, *, raw: bytes | None = None) -> Any:
    """The answer of Django's client. body: as JSON; raw: as it is."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
    return Client(headers=headers).generic(method, f"/api/{path}", content, "application/json")


def new_project(**other: Any) -> dict[str, Any]:
    prompts, completions = ([record.model_dump(mode="json") for record in records] for records in (PROMPTS, COMPLETIONS))
    return {"name": "Another", "prompts": prompts, "completions": completions} | other


@pytest.fixture
def boss(admin: User) -> str:
    """An admin's token."""
    return tokens.make(admin, "tests")


@pytest.fixture
def manager(project: Project) -> str:
    """The token of somebody who manages one of two projects."""
    create_project("Elsewhere", PROMPTS, COMPLETIONS, Task())
    person = User.objects.create_user("manager", password=PASSWORD)
    project.managers.add(person)
    return tokens.make(person, "tests")


# Who gets in


def operations() -> Iterator[tuple[str, str]]:
    """Methods and paths of the OpenAPI document, of the project My house and one of its labelers."""
    yield "GET", "openapi.json"
    for path, methods in api.get_openapi_schema()["paths"].items():
        for method in methods:
            yield method.upper(), path.removeprefix("/api/").format(slug="my-house", name="labeler-0")


def test_every_route_is_in_the_openapi_document_or_behind_the_log_in(project: Project) -> None:
    documented = {re.sub(r"{\w+}", "{}", path.removeprefix("/api/")) for path in api.get_openapi_schema()["paths"]}
    routed = {re.sub(r"<[^>]+>", "{}", str(pattern.pattern)) for pattern in routes()[0]}
    assert routed == documented | {"openapi.json", ""}
    assert Client().get("/api/")["Location"].startswith("/login/")


def test_nothing_answers_without_a_valid_token(project: Project, labelers: list[User], admin: User) -> None:
    found = list(operations())
    assert len(found) == 11
    in_the_browser = Client()
    in_the_browser.force_login(admin, backend="django.contrib.auth.backends.ModelBackend")
    bare = tokens.make(admin, "without a scheme")
    shown = [None, "", "Bearer", "Bearer ", "Bearer heedful_wrong", "Basic Ym9zczpwYXNz", bare]
    for method, path in found:
        answers = [
            Client(headers={} if header is None else {"Authorization": header}).generic(method, f"/api/{path}", b"{}")
            for header in shown
        ]
        answers.append(in_the_browser.generic(method, f"/api/{path}", b"{}"))
        for answer in answers:
            assert answer.status_code == 401, (method, path)
            assert "heedful label users token" in answer.json()["detail"]
            assert answer["WWW-Authenticate"] == "Bearer"
    assert Export.objects.count() == 0
    assert not Project.objects.get().paused


def expire(token: ApiToken) -> None:
    ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


def close_account(token: ApiToken) -> None:
    people.let_in(token.owner, User.objects.create_user("chief", password=PASSWORD, is_staff=True), active=False)


def delete_owner(token: ApiToken) -> None:
    people.delete(token.owner, User.objects.create_user("chief", password=PASSWORD, is_staff=True))


@pytest.mark.parametrize("end", [expire, tokens.revoke, close_account, delete_owner])
def test_a_token_ends(boss: str, admin: User, end: Callable[[ApiToken], None]) -> None:
    other = tokens.make(User.objects.create_user("somebody", password=PASSWORD), "another")
    assert call("GET", "projects", boss).status_code == 200
    end(ApiToken.objects.get(owner=admin))
    assert call("GET", "projects", boss).status_code == 401
    assert call("GET", "projects", other).status_code == 200


def test_of_a_token_the_hash_alone_is_kept(admin: User) -> None:
    token = tokens.make(admin, "nightly export", 3)
    kept = serializers.serialize("json", [*ApiToken.objects.all(), *AuditEntry.objects.all(), *User.objects.all()])
    assert token not in kept
    assert token.removeprefix(tokens.PREFIX) not in kept
    assert re.fullmatch(r"[0-9a-f]{64}", ApiToken.objects.get().token_hash)
    assert timedelta(days=2.9) < ApiToken.objects.get().expires_at - timezone.now() <= timedelta(days=3)
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.action, entry.subject) == ("command line", "made the token 'nightly export'", "boss")
    tokens.revoke(ApiToken.objects.get(), author=admin)
    assert AuditEntry.objects.filter(who="boss", action="revoked the token 'nightly export'", subject="boss").exists()


@pytest.mark.parametrize(("name", "days"), [("", 1), ("  ", 1), ("x" * 61, 1), ("a\0b", 1), ("fine", 0), ("fine", 10**9)])
def test_a_token_that_cannot_be_made_is_told(admin: User, name: str, days: int) -> None:
    with pytest.raises(DataError):
        tokens.make(admin, name, days)
    assert not ApiToken.objects.exists()


def test_use_is_noted_once_a_minute(boss: str, django_assert_num_queries: Any) -> None:
    assert ApiToken.objects.get().used_at is None
    with django_assert_num_queries(2):
        tokens.find(boss)
    first = ApiToken.objects.get().used_at
    assert first is not None
    with django_assert_num_queries(1):
        tokens.find(boss)
    assert ApiToken.objects.get().used_at == first
    ApiToken.objects.update(used_at=first - timedelta(seconds=61))
    tokens.find(boss)
    assert ApiToken.objects.get().used_at >= first


# What its owner may do


def test_a_labelers_token_lists_projects_and_no_more(project: Project, labelers: list[User], boss: str) -> None:
    create_project("Elsewhere", PROMPTS, COMPLETIONS, Task())
    for labeler in labelers[:2]:
        label_all(project, labeler)
    own = tokens.make(labelers[0], "mine")
    answer = call("GET", "projects", own)
    assert [(found["slug"], found["role"]) for found in answer.json()] == [("my-house", "labeler")]
    refused = [call(method, path, own, body) for method, path, body in MANAGED]
    refused.append(call("POST", "projects", own, new_project()))
    assert {one.status_code for one in refused} == {403}
    assert {call(m, path.replace("my-house", "elsewhere"), own, body).status_code for m, path, body in MANAGED} == {404}
    assert not any(text in one.content.decode() for one in (answer, *refused) for text in ("secret-model", "labeler-1"))
    assert Project.objects.filter(paused=True).count() == Export.objects.count() == project.left_out.count() == 0
    assert Project.objects.count() == 2


def test_a_manager_manages_one_project_and_makes_none(project: Project, labelers: list[User], manager: str) -> None:
    assert [(found["slug"], found["role"]) for found in call("GET", "projects", manager).json()] == [("my-house", "manager")]
    for method, path, body in MANAGED:
        assert call(method, path, manager, body).status_code in (200, 201), path
        assert call(method, path.replace("my-house", "elsewhere"), manager, body).status_code == 404, path
    assert call("POST", "projects", manager, new_project()).status_code == 403
    assert set(Project.objects.values_list("slug", flat=True)) == {"my-house", "elsewhere"}
    assert not Project.objects.get(slug="elsewhere").paused


def test_a_log_in_adds_nothing_to_a_token(project: Project, labelers: list[User], admin: User) -> None:
    client = Client(headers={"Authorization": f"Bearer {tokens.make(labelers[0], 'mine')}"})
    client.force_login(admin, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/api/projects/my-house").status_code == 403


def test_a_post_needs_no_csrf_token(project: Project, boss: str) -> None:
    client = Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {boss}"})
    assert client.post("/api/projects/my-house/pause", {"paused": True}, "application/json").status_code == 200
    assert Project.objects.get().paused


# What it does


def test_a_project_is_made_as_on_the_page(admin: User, boss: str, project: Project) -> None:
    gold = Record(
        id="g",
        prompt_id="knock",
        labeler="us",
        source="human",
        criterion="honesty",
        ranks={"knock/1": 1, "knock/2": 2},
        created_at="2026-01-01T00:00:00Z",
    )
    sent = new_project(criterion="honesty", overlap=4, adaptive=True, gold=[gold.model_dump(mode="json")])
    answer = call("POST", "projects", boss, sent)
    assert answer.status_code == 201, answer.content
    assert "no-store" in answer["Cache-Control"]
    told = answer.json()
    assert (told["slug"], told["criterion"], told["mode"], told["adaptive"]) == ("another", "honesty", "rank", True)
    assert told["standing"] == {"judgements": 0, "wanted": 6, "finished_sets": 0, "sets": 3}
    made = Project.objects.get(slug="another")
    twin = create_project("Twin", PROMPTS, COMPLETIONS, Task("honesty", "rank", 4, True), gold=[gold], author=admin)
    fields = ("prompt_id", "prompt", "completions", "gold", "wanted", "information")
    assert list(made.sets.order_by("pk").values(*fields)) == list(twin.sets.order_by("pk").values(*fields))
    assert AuditEntry.objects.filter(who="boss", action="created a project", about="Another").count() == 1
    assert call("GET", "projects/another", boss).json() == told


def test_unknown_fields_of_records_stay(boss: str) -> None:
    prompts = [record.model_dump(mode="json") | {"origin": {"page": 7}} for record in PROMPTS]
    assert call("POST", "projects", boss, new_project(prompts=prompts)).status_code == 201
    shown = call("GET", "projects/another/sets", boss).json()["sets"]
    assert [found["prompt"]["origin"] for found in shown] == [{"page": 7}] * 4


def test_a_or_b_takes_a_second_model(boss: str) -> None:
    against = [row | {"model": "other", "text": row["text"] + " Yes."} for row in new_project()["completions"]]
    assert call("POST", "projects", boss, new_project(mode="versus")).status_code == 422
    assert call("POST", "projects", boss, new_project(mode="versus", against=against)).json()["mode"] == "versus"
    made, ada = Project.objects.get(), User.objects.create_user("ada", password=PASSWORD)
    made.members.add(ada)
    made.instructions.get().readers.add(ada)
    label_all(made, ada)
    versus = call("GET", "projects/another/quality", boss).json()["versus"]
    assert (versus["first"], versus["second"], versus["num_judgements"]) == ("secret-model-1", "other", 4)


def test_pausing_and_inviting(project: Project, boss: str) -> None:
    for paused in (True, True, False):
        assert call("POST", "projects/my-house/pause", boss, {"paused": paused}).json()["paused"] is paused
        assert Project.objects.get().paused is paused
    assert AuditEntry.objects.filter(who="boss", action="paused").count() == 1
    answer = call("POST", "projects/my-house/invitations", boss)
    assert answer.status_code == 201
    path = answer.json()["link"].removeprefix("http://testserver")
    assert Client().get(path).status_code == 200
    found = invitations.find(path.removeprefix("/join/").rstrip("/"))
    assert found is not None
    assert (found.project, found.admin, found.manager) == (project, False, False)


def test_sets_come_in_pages(project: Project, boss: str) -> None:
    pages, after = [], 0
    while after is not None:
        page = call("GET", f"projects/my-house/sets?limit=3&after={after}", boss).json()
        pages.append([found["prompt"]["id"] for found in page["sets"]])
        after = page["after"]
    assert pages == [["hot", "knock", "wifi"], ["odd"]]
    first = call("GET", "projects/my-house/sets?limit=4", boss).json()
    assert first["after"] is None
    assert [found["completions"][0]["model"] for found in first["sets"]] == ["secret-model-1"] * 4
    assert first["sets"][0]["gold"] is None


def test_quality_is_the_pages(project: Project, labelers: list[User], boss: str) -> None:
    assert call("GET", "projects/my-house/quality", boss).json() is None
    for labeler in labelers[:3]:
        label_all(project, labeler)
    found = quality.shown(project, 60).quality
    assert found is not None
    expected = json.loads(json.dumps(to_jsonable_python(found)))
    told = call("GET", "projects/my-house/quality", boss).json()
    assert told == expected
    assert [row["labeler"] for row in told["labelers"]] == ["labeler-0", "labeler-1", "labeler-2"]


def test_quality_that_takes_long_is_asked_for_again(
    project: Project, labelers: list[User], boss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_all(project, labelers[0])
    held = background.start(time.sleep, 2)
    monkeypatch.setattr(api_module, "PATIENCE_S", 0.05)
    answer = call("GET", "projects/my-house/quality", boss)
    assert answer.status_code == 503
    assert "ask again" in answer.json()["detail"]
    held.wait()
    monkeypatch.setattr(api_module, "PATIENCE_S", 60)
    assert call("GET", "projects/my-house/quality", boss).status_code == 200


def test_leaving_out_and_taking_back(project: Project, labelers: list[User], boss: str) -> None:
    for labeler in labelers[:2]:
        label_all(project, labeler)
    elsewhere = create_project("Elsewhere", PROMPTS, COMPLETIONS, Task())
    elsewhere.instructions.get().readers.add(labelers[0])
    label_all(elsewhere, labelers[0])
    project.members.remove(labelers[1])  # who judged something is still there
    User.objects.create_user("stranger", password=PASSWORD)
    listed = call("GET", "projects/my-house/labelers", boss).json()
    assert [(row["name"], row["judgements"], row["counted"]) for row in listed] == [
        (f"labeler-{i}", 4 * (i < 2), True) for i in range(5)
    ]
    read = "projects/my-house/judgements"
    everything = call("GET", read, boss).content
    assert len(everything.splitlines()) == 8
    assert call("GET", f"{read}?after={Judgement.objects.filter(set__project=elsewhere)[0].pk}", boss).status_code == 422
    change = "projects/my-house/labelers/labeler-1/counted"
    assert call("POST", change, boss, {"counted": False}).json() == {"name": "labeler-1", "judgements": 4, "counted": False}
    counted = {row["name"]: row["counted"] for row in call("GET", "projects/my-house/labelers", boss).json()}
    assert [name for name, yes in counted.items() if not yes] == ["labeler-1"]
    assert {json.loads(line)["labeler"] for line in call("GET", read, boss).content.splitlines()} == {"labeler-0"}
    assert standing(project).judgements == 4
    assert call("POST", change, boss, {"counted": True}).json()["counted"]
    assert call("GET", read, boss).content == everything
    for name in ("stranger", "nobody", "a%00b"):
        assert call("POST", f"projects/my-house/labelers/{name}/counted", boss, {"counted": False}).status_code == 404


# Judgements in pages


def lines(answer: Any) -> list[Record]:
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "application/x-ndjson"
    return [parse_line(line, Record, "here") for line in answer.content.decode().split("\n")[:-1]]


def test_each_judgement_is_read_once_while_others_come(project: Project, labelers: list[User], boss: str) -> None:
    for labeler in labelers[:2]:
        label_all(project, labeler)
    found = lines(call("GET", "projects/my-house/judgements?limit=5", boss))
    assert len(found) == 5
    label_all(project, labelers[2])
    while True:
        page = lines(call("GET", f"projects/my-house/judgements?limit=5&after={found[-1].id}", boss))
        found += page
        if len(page) < 5:
            break
    assert len(found) == 12
    assert found == list(files.judgements_of(project))
    assert lines(call("GET", f"projects/my-house/judgements?after={found[-1].id}", boss)) == []
    assert lines(call("GET", "projects/my-house/judgements", boss)) == found


def test_judgements_of_one_moment_are_read_once(project: Project, labelers: list[User], boss: str) -> None:
    for labeler in labelers[:2]:
        label_all(project, labeler)
    Judgement.objects.update(created_at=timezone.now())
    path, found = "projects/my-house/judgements?limit=1", []
    while page := lines(call("GET", path + (f"&after={found[-1].id}" if found else ""), boss)):
        found += page
    assert found == list(files.judgements_of(project))
    assert len({judgement.id for judgement in found}) == 8


def test_what_is_read_is_noted_as_an_export_is(project: Project, labelers: list[User], admin: User, boss: str) -> None:
    label_all(project, labelers[0])
    first = lines(call("GET", "projects/my-house/judgements?limit=3", boss))
    lines(call("GET", f"projects/my-house/judgements?limit=3&after={first[-1].id}", boss))
    found = list(Export.objects.order_by("pk").values_list("who", "num_judgements", "stale"))
    assert found == [("boss", 4, False)], "pages that follow one another are one export"
    assert AuditEntry.objects.filter(who="boss", action="read judgements by the token 'tests'", about="My house").count() == 1
    last = lines(call("GET", "projects/my-house/judgements", boss))[-1]
    assert lines(call("GET", f"projects/my-house/judgements?after={last.id}", boss)) == []
    assert Export.objects.count() == 2, "nothing was read"
    people.delete(labelers[0], admin)
    assert all(export.stale for export in Export.objects.all())
    gone = call("GET", f"projects/my-house/judgements?after={last.id}", boss)
    assert gone.status_code == 422
    assert "read from the beginning" in gone.json()["detail"]


@pytest.mark.parametrize(
    "query",
    [
        "judgements?limit=0",
        "judgements?limit=5001",
        "judgements?limit=many",
        "judgements?after=5",
        "judgements?after=00000000-0000-0000-0000-000000000000",
        "sets?limit=501",
        "sets?after=-1",
        f"sets?after={2**63}",
    ],
)
def test_a_page_that_cannot_be_is_told(project: Project, boss: str, query: str) -> None:
    answer = call("GET", f"projects/my-house/{query}", boss)
    assert answer.status_code == 422
    name = re.search(r"\?(\w+)=", query)
    assert name
    assert name[1] in answer.json()["detail"]


# Bodies that will not do

NUL = [row | {"text": row["text"] + "\0"} for row in new_project()["completions"]]
MANY = [new_project()["completions"][0] | {"id": f"c{n}", "text": f"answer {n}"} for n in range(10)]
LOST = [*new_project()["completions"], new_project()["completions"][0] | {"id": "lost", "prompt_id": "no-such"}]


@pytest.mark.parametrize(
    ("changed", "status", "told"),
    [
        ({"name": "My house"}, 409, "there is one of that name"),
        ({"name": "my HOUSE!"}, 409, "there is one of that name"),
        ({"name": "???"}, 422, "give it a letter or digit"),
        ({"name": ""}, 422, "field 'name'"),
        ({"name": "a\0b"}, 422, "NUL"),
        ({"criterion": "a\0b"}, 422, "NUL"),
        ({"name": 7}, 422, "field 'name': Input should be a valid string, found 7"),
        ({"name": "n" * 101}, 422, "at most 100 fit"),
        ({"overlap": "3"}, 422, "field 'overlap'"),
        ({"overlap": True}, 422, "field 'overlap'"),
        ({"overlap": 0}, 422, "field 'overlap'"),
        ({"overlap": 51}, 422, "field 'overlap'"),
        ({"mode": "dance"}, 422, "field 'mode'"),
        ({"overlapp": 3}, 422, "field 'overlapp'"),
        ({"prompts": "all"}, 422, "field 'prompts'"),
        ({"prompts": []}, 422, "not among the prompts"),
        ({"prompts": [{"id": "hot"}]}, 422, "field 'prompts.0.messages': Field required"),
        ({"completions": []}, 422, "nothing to judge"),
        ({"completions": LOST}, 422, "answers prompt 'no-such', which is not among the prompts"),
        ({"completions": NUL}, 422, "NUL"),
        ({"completions": MANY}, 422, "a set holds up to 9"),
        ({"completions": new_project()["completions"] * 2}, 422, "holds the id 'hot/1' 2 times"),
        ({"prompts": new_project()["prompts"] * 2}, 422, "holds the id 'hot' 2 times"),
        ({"against": []}, 422, "A-or-B"),
    ],
)
def test_a_project_that_cannot_be_is_told(project: Project, boss: str, changed: dict[str, Any], status: int, told: str) -> None:
    answer = call("POST", "projects", boss, new_project(**changed))
    assert answer.status_code == status, answer.content
    assert told in answer.json()["detail"]
    assert "Value error" not in answer.json()["detail"]
    assert Project.objects.count() == 1


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not a JSON object"),
        (b"{", "not a JSON object"),
        (b"[1]", "expected a JSON object, found list"),
        (b"\xff{}", "UTF-8"),
        (b'{"name": NaN}', "NaN"),
        (b'{"name": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_no_json_is_told(project: Project, boss: str, raw: bytes, told: str) -> None:
    for path in ("projects", "projects/my-house/pause", "projects/my-house/labelers/labeler-0/counted"):
        answer = call("POST", path, boss, raw=raw)
        assert answer.status_code == 400, answer.content
        assert told in answer.json()["detail"]


@pytest.mark.parametrize("body", [{}, {"paused": "yes"}, {"paused": 1}, {"paused": True, "why": "lunch"}])
def test_a_pause_is_true_or_false(project: Project, boss: str, body: dict[str, Any]) -> None:
    assert call("POST", "projects/my-house/pause", boss, body).status_code == 422
    assert not Project.objects.get().paused


def test_a_project_may_be_larger_than_a_form_and_not_larger_than_said(boss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    completions = [row | {"text": row["text"] + " and so on" * 30_000} for row in new_project()["completions"]]
    body = json.dumps(new_project(completions=completions)).encode()
    assert len(body) > 3 * 2**20
    assert call("POST", "projects", boss, raw=body).status_code == 201
    monkeypatch.setattr(request_body, "MOST_BYTES", 3 * 2**20)
    answer = call("POST", "projects", boss, raw=body)
    assert answer.status_code == 413
    assert "3 MiB" in answer.json()["detail"]


# The OpenAPI document


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(part)


def test_the_openapi_document_is_whole(project: Project, boss: str) -> None:
    """The rules of OpenAPI 3.1.0 that a generator of clients relies on."""
    answer = call("GET", "openapi.json", boss)
    assert answer["Content-Type"].startswith("application/json")
    document = answer.json()
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(document["info"])
    for node in nodes(document):
        if "$ref" in node:
            kind, name = re.fullmatch(r"#/components/(\w+)/(\w+)", node["$ref"]).groups()  # type: ignore[union-attr]
            assert name in document["components"][kind]
    found = [(path, operation) for path, methods in document["paths"].items() for operation in methods.values()]
    assert len({operation["operationId"] for _, operation in found}) == len(found)
    for path, operation in found:
        declared = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path)), path
        assert all(parameter["required"] for parameter in operation["parameters"] if parameter["in"] == "path")
        assert operation["security"] == [{"BearerToken": []}]
        assert operation["description"]
        assert "401" in operation["responses"]
        assert all(response["description"] for response in operation["responses"].values())
    assert document["components"]["securitySchemes"]["BearerToken"] == {"type": "http", "scheme": "bearer"}
    body = document["paths"]["/api/projects"]["post"]["requestBody"]
    assert body["required"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/NewProject"}
    assert document["components"]["schemas"]["NewProject"]["required"] == ["name", "prompts", "completions"]
    assert document["components"]["schemas"]["Prompt"]["required"] == ["id", "messages"]


def test_the_openapi_document_and_the_page_name_the_same_addresses(project: Project) -> None:
    told = set(re.findall(r"^\| `(GET|POST) /api/(\S+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert told == {(m, p.replace("my-house", "SLUG").replace("labeler-0", "NAME")) for m, p in operations()}
