"""Pages of runs: who may see them, what stands on them, and what a model wrote stays text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import run_folder
from django.test import Client
from labelled_project import PASSWORD

from heedful.store import read_metrics, write_json, write_text
from heedful.web.labelling.models import User
from heedful.web.runs.answers import differing
from heedful.web.runs.quantities import COMPARED, HACKING, LEARNING, SPEED

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
PAGES = ("/runs/", "/runs/show/first/", "/runs/data/first/", "/runs/answers/first/", "/runs/report/first/", "/runs/compare/")


def data(client: Client, name: str = "first", **asked: str) -> dict[str, object]:
    answer = client.get(f"/runs/data/{name}/", {"stage": "ppo"} | asked)
    assert answer.status_code == 200
    return dict(json.loads(answer.content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")))


@pytest.mark.parametrize("page", PAGES)
def test_nobody_but_admins_sees_runs(runs: Path, page: str, client: Client, db: None) -> None:
    run_folder.make(runs / "first")
    assert client.get(page).headers["Location"].startswith("/login/")
    client.force_login(User.objects.create_user("labeler", password=PASSWORD))
    assert client.get(page).status_code == 403


@pytest.mark.parametrize("page", ["show", "data", "answers", "report"])
@pytest.mark.parametrize("name", ["second", "..", "../first", "%2e%2e/first", "first/ppo"])
def test_what_is_no_run_is_not_found(runs: Path, boss: Client, page: str, name: str) -> None:
    run_folder.make(runs / "first")
    run_folder.make(runs.parent / "first")
    assert boss.get(f"/runs/{page}/{name}/").status_code == 404


def test_the_list_says_where_runs_stand(runs: Path, boss: Client) -> None:
    assert "There is no run yet" in boss.get("/runs/").content.decode()
    run_folder.make(runs / "first", state="done")
    run_folder.make(runs / "team" / "second", state="running")
    shown = boss.get("/runs/").content.decode()
    assert re.search(r'href="/runs/show/team/second/">team/second</a>.*?interrupted', shown, re.DOTALL)
    assert re.search(r'href="/runs/show/first/">first</a>.*?unfinished', shown, re.DOTALL)


def test_the_data_of_a_run_are_its_metrics(runs: Path, boss: Client) -> None:
    run = run_folder.make(runs / "first", 30, config="ppo.kl_target=3.0 ppo.episodes=4")
    told = data(boss)
    rows = read_metrics(run)
    curves = told["curves"]
    assert isinstance(curves, dict)
    assert set(curves) == {name for row in rows for name in row if name not in ("step", "stage", "time")} | {SPEED}
    for name, curve in curves.items():
        if name != SPEED:
            assert curve["values"] == [row[name] for row in rows if name in row]
    assert told["kl_target"] == 3.0
    assert curves[SPEED]["values"][0] == pytest.approx(4 * rows[1]["length"] / 2)
    assert "curves" not in data(boss, seen=str(told["version"])), "what the page has is not sent again"
    run_folder.append(run, [run_folder.row(30)])
    assert "curves" in data(boss, seen=str(told["version"]))
    some = data(boss, curves="reward,nothing")["curves"]
    assert isinstance(some, dict)
    assert list(some) == ["reward"]


def test_what_is_wrong_with_a_run_is_said(runs: Path, boss: Client) -> None:
    run = run_folder.make(runs / "first", 3)
    run_folder.append(run, [run_folder.row(3, reward=float("nan"))])
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{cut\n" + json.dumps(run_folder.row(4)) + "\n" + '{"step": 5, "st')
    write_text(run / "hacking.jsonl", "{cut\n{}\n")
    (run / "manifest.json").write_text("{")
    problems = data(boss)["problems"]
    assert problems == [
        "metrics.jsonl, line 5: no row of metrics; what else stands in the file is shown.",
        "reward: 1 values are no finite numbers and are not drawn.",
        "manifest.json cannot be read: where this run stands cannot be told.",
        "hacking.jsonl, line 1: not a row of this log; what else stands in it is shown.",
    ]
    assert data(boss)["hacking"] == {"level": "unknown", "history": []}, "what cannot be read is no pass"
    shown = boss.get("/runs/show/first/").content.decode()
    assert "metrics.jsonl, line 5" in shown


def test_a_run_that_has_just_begun_has_a_page(runs: Path, boss: Client) -> None:
    run = runs / "first"
    write_json(run / "manifest.json", {"stages": {}})
    assert "No stage of this run has trained yet" in boss.get("/runs/show/first/").content.decode()
    assert data(boss)["curves"] == {}
    assert "has not finished" in boss.get("/runs/answers/first/").content.decode()
    assert boss.get("/runs/report/first/").status_code == 404


def test_stages_have_tabs_and_plots_of_their_own(runs: Path, boss: Client) -> None:
    run = run_folder.make(runs / "first", 3)
    run_folder.append(run, [{"step": step, "stage": "dpo", "time": 1.0 * step, "margin_x": 0.1} for step in range(3)])
    shown = boss.get("/runs/show/first/").content.decode()
    assert 'data-curves="margin_x"' in shown
    assert 'data-curves="entropy"' not in shown
    assert 'data-curves="entropy"' in boss.get("/runs/show/first/?stage=ppo").content.decode()


def test_signs_and_answers_are_those_of_the_stage(runs: Path, boss: Client) -> None:
    run = run_folder.make(runs / "first", 10)
    sign = {"name": "phrase", "level": "warn", "said": "“most awesome” stands in 30% of the answers, before in 0%"}
    rows = [{"steps": 5, "stage": "ppo", "signs": [sign]}, {"steps": 5, "stage": "grpo", "signs": []}]
    write_text(run / "hacking.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    said = [{"steps": steps, "stage": "ppo", "prompt": "Why?", "text": f"{HOSTILE} {steps}"} for steps in (5, 10)]
    write_text(run / "samples.jsonl", "".join(json.dumps(row) + "\n" for row in said))
    told = data(boss)
    assert told["hacking"] == {"level": "warn", "history": [{"steps": 5, "signs": [sign]}]}
    assert told["said"] == [{"steps": 10, "prompt": "Why?", "text": f"{HOSTILE} 10", "reward": None}]


def test_answers_are_searched_ordered_and_marked(runs: Path, boss: Client) -> None:
    run = run_folder.make(runs / "first", state="done")
    shared = "The house is warm because the sun shines"
    before = [
        run_folder.answer("a", "Is it hot?", f"{shared} today.", reward=0.9),
        run_folder.answer("b", "Who is there?", "Clap, clap.", reward=0.1, tags=["jokes"]),
        run_folder.answer("c", "And now?", "", reward=float("nan")),
    ]
    after = [
        run_folder.answer("a", "Is it hot?", f"{shared} all day long.", reward=0.2, toxicity=0.75),
        run_folder.answer("b", "Who is there?", HOSTILE, reward=0.6, tags=["jokes"]),
        run_folder.answer("c", "And now?", "Nothing.", reward=0.3),
    ]
    run_folder.evaluated(run, before, after)

    def shown(**asked: str) -> str:
        return boss.get("/runs/answers/first/", asked).content.decode()

    def prompts(page: str) -> list[str]:
        return re.findall(r'<h2 class="text" dir="auto">(.*?)</h2>', page)

    everything = shown()
    assert prompts(everything) == ["Is it hot?", "Who is there?", "And now?"]
    assert f"{shared} <mark>all day long.</mark>" in everything
    assert everything.count("<mark>") == 5
    assert "reward <strong>0.20</strong>, toxicity <strong>0.750</strong>" in everything
    assert "reward <strong>-</strong>" in everything
    assert "(nothing)" in everything
    assert HOSTILE not in everything
    assert "&lt;img src=x onerror=alert(2)&gt;" in everything
    assert prompts(shown(q="CLAP")) == ["Who is there?"]
    assert prompts(shown(tag="jokes")) == ["Who is there?"]
    assert prompts(shown(order="worst")) == ["Is it hot?", "Who is there?", "And now?"]
    assert prompts(shown(order="best")) == ["Who is there?", "Is it hot?", "And now?"]
    assert prompts(shown(order="toxic"))[0] == "Is it hot?"
    assert "Nothing matches" in shown(q="zebra")
    # Written anew: the page follows.
    run_folder.evaluated(run, before[:1], [run_folder.answer("a", "Is it hot?", "No longer than this.")])
    assert prompts(shown()) == ["Is it hot?"]


def test_before_the_first_evaluation_nothing_is_called_sound(runs: Path, boss: Client) -> None:
    run_folder.make(runs / "first", 5)
    assert data(boss)["hacking"] == {"level": "not evaluated yet", "history": []}
    run_folder.append(runs / "first", [run_folder.row(9)])
    assert data(boss)["hacking"] == {"level": "ok", "history": []}


@pytest.mark.parametrize(
    ("first", "second", "marked"),
    [
        ("Yes.", "Yes.", ([], [])),
        ("", "", ([], [])),
        ("the sun is up", "the moon is up", (["sun "], ["moon "])),
        ("a b c", "", (["a b c"], [])),
    ],
)
def test_what_only_one_says_is_marked(first: str, second: str, marked: tuple[list[str], list[str]]) -> None:
    sides = differing(first, second)
    assert tuple("".join(piece.text for piece in side) for side in sides) == (first, second)
    found = tuple([piece.text.strip() for piece in side if not piece.shared] for side in sides)
    assert found == tuple([text.strip() for text in side] for side in marked)


def test_odd_records_do_not_take_a_page_down(runs: Path, boss: Client) -> None:
    run = run_folder.make(runs / "first", 3)
    sign = {"name": "gold", "level": "warn", "said": "half \ud800", "p": float("nan")}
    write_text(run / "hacking.jsonl", json.dumps({"steps": 3, "stage": "ppo", "signs": [sign, 3]}) + "\n")
    rows = [{"steps": 3, "stage": "ppo", "prompt": "Why?", "text": "\ud800", "reward": reward} for reward in (True, 10**400)]
    write_text(run / "samples.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    answers = [run_folder.answer("a", "Why?", "\ud800 x", tags=None, reward=10**400)]
    run_folder.evaluated(run, answers, answers)
    manifest = '{"stages": {"ppo": {"state": "done", "seconds": 1e400}}}'
    (run / "manifest.json").write_text(manifest)
    told = data(boss)
    assert [row["reward"] for row in told["said"]] == [None, None]  # type: ignore[attr-defined]
    assert told["standing"]["stages"][0]["seconds"] is None  # type: ignore[index]
    for page in PAGES[:2] + PAGES[3:4]:
        assert boss.get(page).status_code == 200


def test_many_answers_have_pages_that_keep_the_search(runs: Path, boss: Client) -> None:
    run = run_folder.make(runs / "first")
    rows = [run_folder.answer(f"p{n}", f"Question {n}?", "Yes.") for n in range(45)]
    run_folder.evaluated(run, rows, rows)
    first = boss.get("/runs/answers/first/", {"q": "question"}).content.decode()
    assert "45 answers" in first
    follow = re.search(r'href="(\?[^"]*page=2)">Next', first)
    assert follow
    second = boss.get("/runs/answers/first/" + follow[1].replace("&amp;", "&")).content.decode()
    assert "Question 20?" in second
    assert "2 of 3" in second


def test_damaged_answers_are_named(runs: Path, boss: Client) -> None:
    run = run_folder.make(runs / "first")
    rows = [run_folder.answer("a", "Why?", "So.")]
    run_folder.evaluated(run, rows, rows)
    with (run / "evaluate" / "after.jsonl").open("a") as file:
        file.write('{"prompt_id": "b"}\n')
    assert "after.jsonl:2: expected a JSON object" in boss.get("/runs/answers/first/").content.decode()


def test_runs_side_by_side_show_in_what_they_differ(runs: Path, boss: Client) -> None:
    row = {"label": "Reward", "before": {"estimate": 0.1}, "after": {"estimate": 0.3}, "verdict": "improved"}
    row |= {"difference": {"estimate": 0.2, "low": 0.1, "high": 0.3}}
    for name, rate in (("first", "1e-4"), ("second", "5e-4")):
        run = run_folder.make(runs / name, config=f"ppo.learning_rate={rate}")
        if name == "first":
            write_json(run / "evaluate" / "compare.json", {"compare": {"reward": row}})
    shown = boss.get("/runs/compare/?run=first&run=second&run=nowhere").content.decode()
    assert "<code>ppo.learning_rate</code>" in shown
    assert "ppo.max_steps" not in shown
    assert "0.100 to 0.300" in shown
    assert "+0.200 [+0.100, +0.300]" in shown
    for name in ("third", "fourth"):
        run = run_folder.make(runs / name, 0)
        run_folder.append(run, [{"step": step, "stage": "dpo", "time": 1.0, "margin": 0.5, name: 1.0} for step in range(3)])
    other = boss.get("/runs/compare/?run=third&run=fourth").content.decode()
    assert re.findall('data-curves="(.*?)"', other) == ["margin"]
    assert "Choose two runs or more" in boss.get("/runs/compare/?run=first").content.decode()


def test_a_report_is_in_a_box(runs: Path, boss: Client) -> None:
    run = run_folder.make(runs / "first")
    (run / "report.html").write_text(f"<h1>Report</h1>{HOSTILE}")
    answer = boss.get("/runs/report/first/")
    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    page = boss.get("/runs/show/first/").headers["Content-Security-Policy"]
    assert "script-src 'self'" in page
    assert "unsafe" not in page


def test_what_is_plotted_is_measured() -> None:
    """A metric that was renamed would leave an empty plot."""
    pages = Path(__file__).parents[3] / "docs" / "methods"
    told = (pages / "ppo.md").read_text() + (pages / "hacking.md").read_text()
    for plot in (*LEARNING, *HACKING, *COMPARED):
        for name in plot.curves:
            assert name == SPEED or f"| `{name}` |" in told, name
