"""The report in a real browser, from the disk and without a network: what is plotted is what metrics.jsonl says."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from browsing import accessible
from playwright.sync_api import Browser, Page
from report_run import interval, quantity, row, summary, write_lines

from heedful.report.build import build
from heedful.report.plots import MAX_POINTS
from heedful.store import read_metrics, write_json

MAX_BYTES = 8_000_000
TITLES = {
    "Entropy": "entropy",
    "Length": "length",
    "Length of answers": "length_ratio",
    "Variety": "distinct_ratio",
    "More answers cut off": "more_truncated",
    "More safe prompts refused": "more_safe_refusals",
    "Repetition": "repeated",
    "Reward and length": "reward_length_correlation",
    "Level": "hacking_level",
}


def steps(count: int, every: int, *, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    found = []
    for step in range(count):
        line: dict[str, Any] = {"step": step, "stage": "ppo", "time": float(step), "hacking_level": float(step > count / 2)}
        line |= {name: draw.gauss(1, 0.5) for name in ("reward", "entropy", "length", "repeated", "reward_length_correlation")}
        line["kl_policy_ref"] = 20 * (step + 1) / count + draw.random() / count
        if (step + 1) % every == 0:
            names = ("heldout_reward", "heldout_gold", "length_ratio", "distinct_ratio", "more_truncated", "more_safe_refusals")
            line |= {name: draw.gauss(0, 1) for name in names}
        found.append(line)
    return found


def signs(count: int, every: int) -> list[dict[str, Any]]:
    said = [{"name": "longer", "level": "warn", "said": "long"}]
    stop = [{"name": "gold", "level": "stop", "said": "gold fell"}]
    found = [{"steps": n, "stage": "ppo", "signs": said if n % (2 * every) else []} for n in range(every, count + 1, every)]
    found[-1]["signs"] = [*said, *stop]
    return found


def write(folder: Path, *, num_steps: int, every: int, num_prompts: int, answer: str = "an answer") -> Path:
    curve = {"a": 0.5, "b": 0.2, "start": 0.3, "peak": 2.5, "explained": 0.8}
    hacking = {"level": "stop", "signs": signs(num_steps, every)[-1]["signs"], "curve": curve}
    changed = summary() | {"by_tag": {"helpful": {"reward": quantity("Reward", 0.0, 0.3, "improved")}}}
    changed["align"] = {
        "method": "ppo",
        "steps": num_steps,
        "stopped": "hacking monitor",
        "policy_step": every,
        "hacking": hacking,
    }
    write_json(folder / "summary.json", changed)
    rows = [{"step": n, "stage": "reward", "time": 0.0, "loss": 0.69 - n / 100, "accuracy": 0.5 + n / 50} for n in range(9)]
    write_lines(folder / "metrics.jsonl", rows + steps(num_steps, every))
    write_lines(folder / "hacking.jsonl", signs(num_steps, every))
    draw = random.Random(1)
    for side in ("before", "after"):
        numbered = [(n, row(f"p{n}", 1, draw.gauss(0, 1), f"{answer} {n} {side}")) for n in range(num_prompts)]
        answers = [answered | {"prompt": f"Question {n}?"} for n, answered in numbered]
        write_lines(folder / "evaluate" / f"{side}.jsonl", answers)
    return build(folder)


def opened(browser: Browser, report: Path, said: list[str]) -> Page:
    """Without a network; what the console says and what the page asks for is an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(report.as_uri())
    return page


def plotted(page: Page) -> dict[str, list[dict[str, Any]]]:
    """By title of the card, what plotly itself holds of each curve."""
    found: list[tuple[str, str, list[dict[str, Any]]]] = page.evaluate(
        """() => [...document.querySelectorAll(".plot")].map((plot) => [
            plot.id, plot.closest(".card").querySelector("h3").textContent,
            plot.data.map((curve) => ({ name: curve.name, type: curve.type, x: [...curve.x], y: curve.y && [...curve.y],
                bars: curve.error_x && curve.error_x.array ? [curve.error_x.arrayminus[0], curve.error_x.array[0]] : null })),
        ])"""
    )
    return {f"{id_.split('-')[0]} {title}": curves for id_, title, curves in found}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("short"), num_steps=40, every=4, num_prompts=20)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("long"), num_steps=20_000, every=10, num_prompts=500, answer="word " * 900)


@pytest.fixture(scope="module")
def page(browser: Browser, short: Path) -> Page:
    """Of the short run; nothing has been said or asked for."""
    said: list[str] = []
    found = opened(browser, short, said)
    assert found.evaluate('[...document.querySelectorAll(".plot")].every((plot) => plot.querySelector(".main-svg"))'), (
        "whoever prints from the command line prints as soon as the page is loaded"
    )
    assert said == []
    return found


def test_what_is_plotted_is_what_the_files_say(page: Page, short: Path) -> None:
    found = plotted(page)
    metrics = read_metrics(short.parent)

    def of(stage: str, name: str) -> tuple[list[int], list[float]]:
        rows = [row for row in metrics if row["stage"] == stage and name in row]
        return [row["step"] + 1 for row in rows], [row[name] for row in rows]

    training, held_out = found["ppo Reward"]
    assert (training["x"], training["y"]) == of("ppo", "reward")
    assert (held_out["x"], held_out["y"]) == of("ppo", "heldout_reward")
    assert len(held_out["x"]) == 10
    (kl,) = found["ppo Distance from the base"]
    assert (kl["x"], kl["y"]) == of("ppo", "kl_policy_ref")
    assert (found["reward Loss"][0]["x"], found["reward Loss"][0]["y"]) == of("reward", "loss")
    checked = set()
    for card, (curve, *_) in found.items():
        group, _, title = card.partition(" ")
        if group in ("health", "limits") and title in TITLES:
            assert (curve["x"], curve["y"]) == of("ppo", TITLES[title]), card
            checked.add(title)
    assert checked == set(TITLES)

    reward, gold, curve = found["monitor Reward beside gold"]
    heard = [row for row in metrics if "heldout_gold" in row]
    for points, name in ((reward, "heldout_reward"), (gold, "heldout_gold")):
        assert points["x"] == [math.sqrt(row["kl_policy_ref"]) for row in heard]
        assert points["y"] == [row[name] for row in heard]
    for d, value in zip(curve["x"][1:], curve["y"][1:], strict=True):
        assert value == pytest.approx(0.3 + d * (0.5 - 0.2 * math.log(d)), abs=1e-9)
    warned, stopped, evaluated = found["monitor When which sign held"]
    assert (warned["x"], set(warned["y"])) == ([4, 12, 20, 28, 36, 40], {"longer"})
    assert (stopped["x"], stopped["y"]) == ([40], ["gold"])
    assert evaluated["x"] == list(range(4, 41, 4))

    before, after = found["evaluate Reward"]
    for side, name in ((before, "before"), (after, "after")):
        lines = (short.parent / "evaluate" / f"{name}.jsonl").read_text().splitlines()
        assert side["x"] == [json.loads(line)["reward"] for line in lines]


def test_each_difference_is_plotted_with_its_interval(page: Page) -> None:
    found = plotted(page)
    compared = summary()["compare"]
    places = {"reward": "Reward", "toxicity": "Scores", "refusal_safe": "Rates", "length": "Length"}
    for name, title in places.items():
        (dot,) = [dot for dot in found[f"differences {title}"] if dot["name"] == name]
        scale = 100 if name == "refusal_safe" else 1
        difference = compared[name]["difference"]
        assert dot["x"] == [scale * difference["estimate"]]
        low, high = dot["x"][0] - dot["bars"][0], dot["x"][0] + dot["bars"][1]
        assert (low, high) == pytest.approx((scale * difference["low"], scale * difference["high"]))


def test_a_difference_without_an_interval_has_no_bar(browser: Browser, tmp_path: Path) -> None:
    alone = quantity("Reward", 0.0, 0.5, "one prompt only: no interval") | {"num_prompts": 1, "difference": interval(0.5)}
    write_json(tmp_path / "summary.json", summary() | {"compare": {"reward": alone}})
    page = opened(browser, build(tmp_path), [])
    (dot,) = plotted(page)["differences Reward"]
    assert (dot["x"], dot["bars"]) == ([0.5], None)
    assert "one prompt gives no interval" in page.inner_text("h1")


def test_a_run_of_20000_steps_stays_small_and_says_what_it_leaves_out(browser: Browser, long: Path) -> None:
    assert long.stat().st_size < MAX_BYTES
    said: list[str] = []
    page = opened(browser, long, said)
    metrics = [row for row in read_metrics(long.parent) if row["stage"] == "ppo"]
    for card, name in (("ppo Reward", "reward"), ("health Entropy", "entropy"), ("limits Repetition", "repeated")):
        (curve, *_) = plotted(page)[card]
        truth = {row["step"] + 1: row[name] for row in metrics}
        assert MAX_POINTS / 2 < len(curve["x"]) <= MAX_POINTS
        assert [truth[step] for step in curve["x"]] == curve["y"], "each point is one of the file's"
        assert curve["x"] == sorted(curve["x"])
        assert {1, 20_000} <= set(curve["x"])
        assert {min(truth.values()), max(truth.values())} <= set(curve["y"])
    held = {curve["name"]: curve for curve in plotted(page)["monitor When which sign held"]}
    assert held["stop"]["x"] == [20_000], "no sign is lost"
    assert len(held["warn"]["x"]) <= 500
    text = str(page.text_content("body"))
    assert "(1,001 of 2,000 evaluations)" in text
    assert "metrics.jsonl has all 20,000 steps" in text
    (unshown,) = re.findall(r"(\d+) more answers would make this page too large", text)
    assert text.count("Question ") + int(unshown) == 500
    assert said == []


def test_on_paper_no_plot_is_wider_than_its_card(page: Page) -> None:
    before = page.evaluate('[...document.querySelectorAll(".plot")].map((plot) => plot._fullLayout.width)')
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})
    page.evaluate('dispatchEvent(new Event("beforeprint"))')
    out = page.evaluate(
        """() => [...document.querySelectorAll(".card .main-svg")].filter((drawing) => {
            const [card, box] = [drawing.closest(".card"), drawing].map((element) => element.getBoundingClientRect());
            return box.width < 100 || box.left < card.left || box.right > card.right + 1 || box.bottom > card.bottom + 1;
        }).length"""
    )
    assert out == 0
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.evaluate('dispatchEvent(new Event("afterprint"))')
    page.wait_for_timeout(300)
    after = page.evaluate('[...document.querySelectorAll(".plot")].map((plot) => plot._fullLayout.width)')
    assert after == before


def test_the_page_is_accessible_and_fits_a_phone(page: Page) -> None:
    accessible(page)
