"""In a real browser: a run is watched while it trains, answers are read, models are talked to."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_folder
import tiny_model
import torch
from browsing import accessible, join, visitor
from label_server import Server
from playwright.sync_api import Browser, Page

from heedful.models.policy import POLICY, load_language_model
from heedful.records import Vote, parse_line
from heedful.store import Run, read_metrics, write_json, write_text
from heedful.training.adapter import save_policy

PLOTTED = """name => {
  const plot = [...document.querySelectorAll('.plot')].find((one) => one.dataset.curves.split(',').includes(name));
  if (!plot) return [];
  plot.scrollIntoView();
  return (plot.data || []).map((trace) => ({ name: trace.name, x: [...trace.x], y: [...trace.y] }));
}"""
SOON_S = 10.0  # a busy machine takes several times what benchmarks/dashboard.py measures on an idle one
LABELS = {
    "reward": "rollouts",
    "heldout_reward": "held-out",
    "heldout_gold": "gold, held-out",
    "tokens_per_s": "tokens a second",
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "runs").mkdir()
    found = Server(tmp_path / "labels", tmp_path / "server.log", runs=tmp_path / "runs")
    yield found
    found.stop()


def plotted(page: Page, name: str) -> tuple[list[int], list[float]]:
    """What the plot of a metric shows."""
    wanted = LABELS.get(name, name.replace("_", " "))
    for _ in range(50):
        traces: list[dict[str, Any]] = page.evaluate(PLOTTED, name)
        own = [trace for trace in traces if trace["name"] == wanted]
        if own:
            return own[0]["x"], own[0]["y"]
        page.wait_for_timeout(100)
    raise AssertionError(f"{name} is not drawn: {traces}")


def in_file(run: Path, name: str) -> tuple[list[int], list[float]]:
    rows = [row for row in read_metrics(run) if name in row]
    return [row["step"] + 1 for row in rows], [row[name] for row in rows]


def test_a_run_is_watched_while_it_trains(browser: Browser, served: Server, tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "runs" / "first", 30, config="ppo.kl_target=3.0 ppo.episodes=8")
    said: list[str] = []
    page = visitor(browser, said)
    assert served.link
    join(page, served.link, "boss")
    page.get_by_role("link", name="Runs").click()
    accessible(page)
    with Run(run):
        told = {"stage": "ppo", "done": 30, "total": 400, "note": "", "time": time.time(), "eta_s": 740.0}
        write_json(run / ".progress.json", told)
        page.get_by_role("link", name="first", exact=True).click()
        for name in (
            "reward",
            "heldout_reward",
            "heldout_gold",
            "kl_policy_ref",
            "entropy",
            "value_loss",
            "clip_fraction",
            "length",
        ):
            assert plotted(page, name) == in_file(run, name), name
        page.wait_for_selector("#state.running")
        lengths = in_file(run, "length")[1]
        assert plotted(page, "tokens_per_s")[1] == pytest.approx([8 * length / 2 for length in lengths[1:]])
        drawn = "name => document.querySelector(`[data-curves='${name}']`).layout.shapes.map((one) => one.y0)"
        assert page.evaluate(drawn, "kl_policy_ref") == [3.0]
        plotted(page, "repeated")
        assert page.evaluate(drawn, "repeated") == [0.2]
        assert "ppo 30/400" in page.locator(".standing").inner_text()
        assert "12 min 20 s to go" in page.locator(".standing").inner_text()
        accessible(page)
        page.evaluate("() => { window.same = true; }")
        run_folder.append(run, [run_folder.row(step, new_quantity=0.5 * step) for step in range(30, 45)])
        sign = {"name": "phrase", "level": "stop", "said": "“<b>most awesome</b>” stands in 60% of the answers"}
        write_text(run / "hacking.jsonl", json.dumps({"steps": 40, "stage": "ppo", "signs": [sign]}) + "\n")
        page.wait_for_function("() => document.querySelector('#level').textContent === 'stop'", timeout=20_000)
        assert page.locator("#signs").inner_text() == sign["said"]
        for _ in range(100):  # the log of signs may be read before the metrics are
            if len(plotted(page, "reward")[0]) == 45:
                break
            page.wait_for_timeout(100)
        for name in ("reward", "heldout_reward", "repeated"):
            assert plotted(page, name) == in_file(run, name), name
        assert len(plotted(page, "reward")[0]) == 45
        page.get_by_text("All other quantities").click()
        assert plotted(page, "new_quantity") == in_file(run, "new_quantity"), "first measured while one looks"
        assert page.evaluate("() => window.same"), "the page was loaded anew"
    page.wait_for_selector("#state.interrupted", timeout=30_000)
    assert said == []


def test_a_long_run_is_thinned_and_shown_soon(browser: Browser, served: Server, tmp_path: Path) -> None:
    name = "team/ppo_smollm2_135m_lr1e-5_kl0.05_seed0_2026-11-30"
    run = run_folder.make(tmp_path / "runs" / name, 0)
    run_folder.append(run, [run_folder.row(step) for step in range(20_000)])
    said: list[str] = []
    page = visitor(browser, said)
    assert served.link
    join(page, served.link, "boss")
    began = time.monotonic()
    page.goto(f"{served.url}/runs/show/{name}/", wait_until="commit")
    page.wait_for_function("() => document.querySelectorAll('.plot polyline, .plot .main-svg').length > 2")
    assert time.monotonic() - began < SOON_S
    steps, values = plotted(page, "reward")
    rows = read_metrics(run)
    assert 100 < len(steps) <= 400
    assert all(rows[step - 1]["reward"] == value for step, value in zip(steps, values, strict=True))
    accessible(page)
    assert said == []


def test_base_and_policy_are_talked_to_and_thumbs_are_votes(browser: Browser, served: Server, tmp_path: Path) -> None:
    tiny = tiny_model.make(tmp_path / "tiny")
    model = load_language_model(str(tiny), dtype=torch.float32, device=torch.device("cpu"))
    model.add_adapter(POLICY, rank=4, alpha=8.0, targets=("q_proj", "v_proj"), layers=2, seed=0)
    with torch.no_grad():
        for tensor in model.adapter_parameters(POLICY).values():
            tensor.normal_(generator=torch.Generator().manual_seed(1))
    run = run_folder.make(tmp_path / "runs" / "first", state="done")
    save_policy(model, run / "ppo" / "policy", policy_version="ppo-0-9")
    rows = [run_folder.answer("a", "Is it hot?", "The sun is up <b>now</b>.")]
    run_folder.evaluated(run, rows, [run_folder.answer("a", "Is it hot?", "No.")])
    write_text(run / "report.html", "<!doctype html><title>A report</title><h1>Yes</h1>")

    said: list[str] = []
    page = visitor(browser, said)
    assert served.link
    join(page, served.link, "boss")
    page.goto(f"{served.url}/runs/show/first/")
    page.get_by_role("link", name="Answers before and after").click()
    assert "The sun is up <b>now</b>." in page.locator(".side").first.inner_text()
    accessible(page)
    page.go_back()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report").click()
    assert opened.value.locator("h1").inner_text() == "Yes"
    page.get_by_role("link", name="Chat").nth(1).click()
    accessible(page)
    page.get_by_label("Longest answer").fill("8")
    page.get_by_role("button", name="Begin").click()
    for number, message in enumerate(("Knock, knock.", "Boo."), start=1):
        page.get_by_label("Your message").fill(message)
        page.keyboard.press("Enter")
        page.wait_for_function(
            "number => document.querySelectorAll('.thumbs').length === 2 * number", arg=number, timeout=120_000
        )
    sides = page.locator(".turn").first.locator(".side .text")
    assert sides.count() == 2
    assert sides.nth(0).inner_text() != sides.nth(1).inner_text(), "base and policy are two models"
    accessible(page)
    correction = page.locator(".turn").first.locator("details.correction").nth(1)
    correction.locator("summary").click()
    correction.locator("textarea").fill("Who's there?")
    page.get_by_role("button", name="Thumbs down for base").first.click()
    page.wait_for_selector("button[aria-pressed=true]")
    assert correction.locator("textarea").input_value() == "Who's there?", "what is being typed outlasts another click"
    assert correction.get_attribute("open") is not None
    page.goto(f"{served.url}/chat/")
    with page.expect_download() as download:
        page.get_by_role("link", name="Votes of all chats").click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as packed:
        (line,) = packed.read("votes.jsonl").decode().splitlines()
    vote = parse_line(line, Vote, "votes.jsonl:1")
    assert (vote.value, vote.labeler) == (0, "boss")
    served.run("export-chat", "--output", str(tmp_path / "chat"))
    assert (tmp_path / "chat" / "votes.jsonl").read_text().splitlines() == [line]
    second = run_folder.make(tmp_path / "runs" / "second", 12)
    page.goto(f"{served.url}/runs/compare/?run=first&run=second")
    for _ in range(50):
        traces = {trace["name"]: (trace["x"], trace["y"]) for trace in page.evaluate(PLOTTED, "entropy")}
        if traces:
            break
        page.wait_for_timeout(100)
    assert traces == {"first": in_file(run, "entropy"), "second": in_file(second, "entropy")}
    accessible(page)
    assert said == []
