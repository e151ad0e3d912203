"""The API of a real server: from Python, with curl, and as docs/api.md shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from label_server import Server, command, csrf, join
from labelled_project import COMPLETIONS, PROMPTS

from heedful.client import LabelServer, ServerError
from heedful.records import Judgement, read_jsonl
from heedful.store import write_jsonl

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("api")
    found = Server(folder / "labels", folder / "server.log")
    assert found.link
    join(found.link, "boss")
    yield found
    found.stop()


def token_of(server: Server, name: str) -> str:
    found = json.loads(server.run("users token", name, "--name", "tests", "--days", "1", "--json"))
    assert (found["owner"], found["name"], found["valid_days"]) == (name, "tests", 1)
    return str(found["token"])


def test_from_python_over_http(server: Server, tmp_path: Path) -> None:
    with LabelServer(server.url, token_of(server, "boss")) as labels:
        made = labels.create_project("End to end", PROMPTS, COMPLETIONS, overlap=1)
        assert (made.slug, made.standing.sets, made.role) == ("end-to-end", 4, "admin")
        with pytest.raises(ServerError, match="there is one of that name") as refused:
            labels.create_project("End to end", PROMPTS, COMPLETIONS)
        assert refused.value.status == 409
        browser = join(labels.invite(made.slug), "ada@home")
        assert list(labels.judgements(made.slug)) == []
        assert labels.quality(made.slug) is None

        address = f"{server.url}/project/{made.slug}/"
        page = browser.get(f"{address}instructions/").text
        browser.post(f"{address}instructions/", data={"version": 1, "csrfmiddlewaretoken": csrf(page)})
        page = browser.get(address).text
        form = dict(re.findall(r'name="(set|nonce|version|csrfmiddlewaretoken)" value="(\w+)"', page))
        shown = {found.id: found for found in labels.sets(made.slug)}
        assert [found.prompt for found in shown.values()] == PROMPTS
        assert [one for found in shown.values() for one in found.completions] == COMPLETIONS
        given = shown[int(form["set"])]
        count = len({completion.text.strip() for completion in given.completions})
        answer = json.dumps({"tiers": [[n] for n in range(count)], "flagged": [], "seconds": 2})
        assert browser.post(address, data=form | {"answer": answer}).status_code == 302

        found = list(labels.judgements(made.slug))
        assert [(judgement.labeler, judgement.prompt_id) for judgement in found] == [("ada@home", given.prompt.id)]
        assert set(found[0].ranks) == {completion.id for completion in given.completions}
        server.run("export", "--project", "End to end", "--output", str(tmp_path / "judgements.jsonl"))
        assert read_jsonl(tmp_path / "judgements.jsonl", Judgement) == found
        assert list(labels.judgements(made.slug, after=found[0].id)) == []
        assert labels.project(made.slug).standing.judgements == 1
        settled = labels.quality(made.slug)
        assert settled is not None
        assert settled.agreement["num_judgements"] == 1

        assert [(row.name, row.judgements) for row in labels.labelers(made.slug)] == [("ada@home", 1), ("boss", 0)]
        assert not labels.count_in(made.slug, "ada@home", False).counted
        assert list(labels.judgements(made.slug)) == []
        assert labels.count_in(made.slug, "ada@home").counted
        assert labels.pause(made.slug).paused
        assert not labels.pause(made.slug, False).paused

    with LabelServer(server.url, token_of(server, "ada@home")) as own:
        assert [(project.slug, project.role) for project in own.projects()] == [("end-to-end", "labeler")]
        with pytest.raises(ServerError, match="403") as refused:
            list(own.judgements("end-to-end"))
        assert refused.value.status == 403
        listed = json.loads(server.run("users tokens", "--json"))["tokens"]
        (last,) = [row for row in listed if row["owner"] == "ada@home"]
        assert last["used_at"] is not None
        assert "ada@home" in server.run("users tokens")
        assert "revoked ada@home's token 'tests'" in server.run("users revoke", str(last["id"]))
        with pytest.raises(ServerError, match="401"):
            own.projects()


def fenced(language: str, heading: str) -> str:
    """The one block of a language under a heading of docs/api.md."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(block)


def test_the_examples_of_the_page(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEEDFUL_LABEL_TOKEN", token_of(server, "boss"))
    write_jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    write_jsonl(tmp_path / "completions.jsonl", COMPLETIONS)
    here = "http://localhost:8765"
    script = fenced("python", "From Python")
    assert here in script
    exec(script.replace(here, server.url), {})
    printed = capsys.readouterr().out
    assert f"send this link to a labeler: {server.url}/join/" in printed
    assert "wanted=8" in printed
    assert (tmp_path / "judgements.jsonl").read_text() == ""
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    commands = fenced("bash", "With curl")
    assert here in commands
    commands = commands.replace(here, server.url).replace("curl ", "curl --silent --show-error --write-out '\\n' ")
    done = subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    listed, one, paused = (json.loads(line) for line in done.stdout.split("\n")[:3])
    assert "first-try" in {project["slug"] for project in listed}
    assert not one["paused"]
    assert paused["paused"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("users token", "nobody", "--name", "x"), "nobody is called 'nobody'; 'heedful label users list'"),
        (("users revoke", "99"), "there is no token 99"),
    ],
)
def test_commands_about_what_is_not_there(server: Server, words: tuple[str, ...], told: str) -> None:
    verb, *rest = words
    done = subprocess.run(command(verb, server.home, *rest), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert told in done.stderr
