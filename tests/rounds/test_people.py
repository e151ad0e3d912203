"""A round that waits for people, on a real labelling server."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from label_server import Server, csrf, join
from labelled_project import COMPLETIONS, PROMPTS

from heedful.client import LabelServer
from heedful.config import Config, RewardTermSection, RoundSection, parse
from heedful.errors import ConfigError
from heedful.models.reward import Answer
from heedful.people import People, project_name
from heedful.records import Completion, Judgement, read_jsonl
from heedful.rounds import Round
from heedful.run_layout import Layout
from heedful.stages.label import label, require_judges
from heedful.store import write_json, write_jsonl
from heedful.thumbs import thumbs_reward
from heedful.waiting import FILE, read_waiting
from heedful.web.runs.standing import standing


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("people")
    found = Server(folder / "labels", folder / "server.log")
    assert found.link
    join(found.link, "boss")
    yield found
    found.stop()


@pytest.fixture
def token(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    made = json.loads(server.run("users token", "boss", "--name", "tests", "--days", "1", "--json"))["token"]
    monkeypatch.setenv("HEEDFUL_LABEL_TOKEN", made)
    return str(made)


class Labeler:
    """Judges one set of a project each time that the run goes to sleep."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.browser: httpx2.Client | None = None

    def __call__(self, seconds: float) -> None:
        with LabelServer(self.server.url) as labels:
            (slug,) = [project.slug for project in labels.projects() if project.slug.startswith(self.name)]
            address = f"{self.server.url}/project/{slug}/"
            if self.browser is None:
                self.browser = join(labels.invite(slug), f"{self.name}@home")
                page = self.browser.get(f"{address}instructions/").text
                self.browser.post(f"{address}instructions/", data={"version": 1, "csrfmiddlewaretoken": csrf(page)})
            page = self.browser.get(address).text
            form = dict(re.findall(r'name="(set|nonce|version|csrfmiddlewaretoken)" value="(\w+)"', page))
            (given,) = [found for found in labels.sets(slug) if found.id == int(form["set"])]
        texts = {completion.text.strip() for completion in given.completions}
        tiers = [[n] for n in range(len(texts))] if len(texts) > 1 else [[0], []]
        answer = json.dumps({"tiers": tiers, "flagged": [], "seconds": 2})
        assert self.browser.post(address, data=form | {"answer": answer}).status_code == 302


def test_a_round_waits_for_its_quota_and_goes_on(server: Server, token: str, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    settings = RoundSection(judges="people", server=server.url, quota=3, poll_s=0.01)
    run = tmp_path / "waits"
    run.mkdir()

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    people = People(settings, run, lambda *how: told.append(how), sleep=interrupted)
    with pytest.raises(KeyboardInterrupt):
        people.judge("waits round 1", PROMPTS, COMPLETIONS, criterion="helpfulness")
    assert told == [(0, 3, "waiting for labels: 0 of 3 sets")]
    waiting = read_waiting(run)
    assert waiting is not None
    assert (waiting["done"], waiting["total"], waiting["server"]) == (0, 3, server.url)
    # The state of the run, for the dashboard and for 'heedful status': nobody is at work in it.
    write_json(run / "manifest.json", {"stages": {"sample": {"state": "done"}, "label": {"state": "running"}}})
    now = standing(run, Config())
    assert (now.state, now.stage, now.done, now.total) == ("waiting", "label", 0, 3)
    assert now.note == "waiting for labels: 0 of 3 sets; the same heedful run goes on when they have come"

    again = People(settings, run, lambda *how: told.append(how), sleep=Labeler(server, "waits"))
    found = again.judge("waits round 1", PROMPTS, COMPLETIONS, criterion="helpfulness")
    assert [done for done, _, _ in told[1:]] == [0, 1, 2, 3]
    assert len({judgement.prompt_id for judgement in found}) == 3
    assert {judgement.source for judgement in found} == {"human"}
    assert not (run / FILE).exists()
    with LabelServer(server.url) as labels:
        assert len([one for one in labels.projects() if one.slug.startswith("waits")]) == 1, "found again, not made twice"


@contextmanager
def proxy(server: Server) -> Iterator[tuple[str, list[int]]]:
    """A proxy in front of the server, as nginx is one: it says 502 to as many requests as the list is long."""
    away: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = 502, b"Bad Gateway"
            if not away:
                kept = {
                    name: value for name, value in self.headers.items() if name.lower() in ("authorization", "content-type")
                }
                reply = httpx2.request(self.command, server.url + self.path, content=body, headers=kept, timeout=60)
                status, content = reply.status_code, reply.content
            else:
                away.pop()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = forward

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}", away
    http.shutdown()
    http.server_close()


def test_a_wait_outlasts_a_proxy_that_says_the_server_is_away(server: Server, token: str, tmp_path: Path) -> None:
    told: list[str] = []
    labeler = Labeler(server, "proxied")
    (tmp_path / "proxied").mkdir()
    with proxy(server) as (url, away):

        def sleep(seconds: float) -> None:
            if len(told) == 1:
                away.extend([502] * 2)
            else:
                labeler(seconds)

        settings = RoundSection(judges="people", server=url, quota=1, poll_s=0.01)
        people = People(settings, tmp_path / "proxied", lambda _, __, said: told.append(said), sleep=sleep)
        found = people.judge("proxied round 1", PROMPTS, COMPLETIONS, criterion="helpfulness")
    assert any("does not answer, trying again" in said for said in told)
    assert found, "what was judged meanwhile is there"


def test_what_people_say_becomes_the_judgements_of_the_round(server: Server, token: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "completions.jsonl", COMPLETIONS[:7])
    asked = {"round": {"judges": "people", "server": server.url, "poll_s": 0.01, "quota": 1}}
    run = tmp_path / "house"
    with LabelServer(server.url) as labels:  # somebody has judged it before the command comes
        shown = read_jsonl(tmp_path / "completions.jsonl", Completion)
        name = project_name("house round 2", ["helpful, honest, harmless", "rank", "1", *map(_line, shown)])
        labels.create_project(name, PROMPTS[:2], shown, criterion="helpful, honest, harmless", overlap=1)
    Labeler(server, "house")(0)
    label(parse(asked, "x.toml"), run, Round(2), PROMPTS[:2], tmp_path / "completions.jsonl", lambda *_: None)
    (found,) = read_jsonl(run / "label" / "judgements.jsonl", Judgement)
    assert found.labeler == "house@home"
    assert not (run / FILE).exists()


def _line(completion: Completion) -> str:
    from heedful.records import to_line

    return to_line(completion)


def test_a_persons_thumb_is_the_reward_and_is_asked_for_once(server: Server, token: str, tmp_path: Path) -> None:
    asked = {"round": {"judges": "people", "server": server.url, "poll_s": 0.01}}
    run = tmp_path / "thumbed"
    run.mkdir()
    answers = [Answer(prompt.messages, text, [1], [2]) for prompt, text in zip(PROMPTS, ("Yes.", "No\0."), strict=False)]
    reward = thumbs_reward(parse(asked, "x.toml"), run, PROMPTS, lambda *_: None)
    people = reward.judge.__closure__
    assert people is not None
    (own,) = [cell.cell_contents for cell in people if isinstance(cell.cell_contents, People)]
    own.sleep = Labeler(server, "thumbed")
    assert reward(answers) == [1.0, 1.0]
    assert reward.measured == {"thumbs_asked": 2.0}
    later = thumbs_reward(parse(asked, "x.toml"), run, PROMPTS, lambda *_: None)
    assert later([*answers, answers[0]]) == [1.0, 1.0, 1.0]
    assert later.measured == {"thumbs_asked": 0.0}


def test_simulated_thumbs_are_zero_or_one_and_the_same_twice(tmp_path: Path) -> None:
    config = Config()
    texts = ("Open the windows at night, close the blinds by day, and let a fan move the air.", "", "You idiot")
    answers = [Answer(PROMPTS[0].messages, text, [1], [2]) for text in texts]
    reward = thumbs_reward(config, tmp_path, PROMPTS, lambda *_: None)
    assert reward(answers) == [1.0, 0.0, 0.0]
    assert thumbs_reward(config, tmp_path / "other", PROMPTS, lambda *_: None)(answers) == [1.0, 0.0, 0.0]


def test_thumbs_of_other_judges_pass_for_nobodys(tmp_path: Path) -> None:
    """A run that was tried with simulated thumbs samples the same answers for people, and asks them."""
    people = {"judges": "people", "server": "http://127.0.0.1:1"}

    def asked(**fields: dict[str, object]) -> float:
        reward = thumbs_reward(parse(fields, "x.toml"), tmp_path, PROMPTS, lambda *_: None)
        reward.judge = lambda answers: [1.0] * len(answers)  # nobody is there
        reward([Answer(PROMPTS[0].messages, "You idiot", [1], [2])])
        return reward.measured["thumbs_asked"]

    assert [asked(), asked(), asked(label={"noise": 0.5}), asked(label={"criterion": "kind"})] == [1, 0, 1, 0]
    assert [asked(round=people), asked(round=people), asked(round=people | {"overlap": 2})] == [1, 0, 1]
    assert [asked(round=people, label={"criterion": "kind"}), asked(round=people, label={"noise": 0.5})] == [1, 0]


@pytest.mark.parametrize(
    ("fields", "again"),
    [
        ({"round": {"judges": "people", "server": "http://127.0.0.1:1"}}, True),
        ({"label": {"noise": 0.5}}, True),
        ({"round": {"overlap": 2}}, False),
        ({"label": {"criterion": "kind"}}, False),
    ],
)
@pytest.mark.parametrize("place", [{"reward": {"terms": [{"source": "thumbs"}]}}, {"monitor": {"gold": "thumbs"}}])
def test_a_policy_of_other_thumbs_is_not_already_done(fields: dict[str, object], again: bool, place: dict[str, object]) -> None:
    def align_settings(more: dict[str, object]) -> dict[str, object]:
        config = parse(place | more, "x.toml")
        return Layout(config, Path("run"), Round(), config.reward.terms or (RewardTermSection(),)).align_settings

    assert (align_settings(fields) != align_settings({})) == again


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"round": {"judges": "people"}}, "needs round.server"),
        ({"round": {"server": "http://127.0.0.1:1"}}, "belongs to judges = 'people'"),
    ],
)
def test_people_and_their_server_belong_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(fields, "x.toml")


def test_judges_who_cannot_be_asked_are_refused_before_anything_is_sampled() -> None:
    people = {"judges": "people", "server": "http://127.0.0.1:1"}
    with pytest.raises(ConfigError, match="several workers"):
        require_judges(parse({"round": people, "scale": {"num_trainers": 2}}, "x.toml"))
    with pytest.raises(ConfigError, match=r"prefer\.gate names no pairs"):
        require_judges(parse({"round": {"judges": "ai"}}, "x.toml"))


@pytest.mark.parametrize("text", ["", "[]", '{"done": "a"}', "{" * 100_000])
def test_a_broken_file_is_no_waiting_run(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_waiting(tmp_path) is None


def test_a_projects_name_is_its_own_address() -> None:
    name = project_name("Läufe & Co. / round 2", ["a"])
    assert re.fullmatch(r"[a-z0-9-]+", name)
    assert name != project_name("Läufe & Co. / round 2", ["b"])
    assert len(project_name("x" * 500, ["a"])) <= 100
