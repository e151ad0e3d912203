"""How soon the page of a long run is there: python benchmarks/dashboard.py [--steps N] [--repeats N]

Writes a run without models, starts `heedful serve`, joins, and opens the run's page in Chromium, each time in a browser that
has nothing kept; the server knows the file from the second time on. The page is loaded when the curves in view are there as
bare lines, and whole when plotly has drawn them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import run_folder
from browsing import FLAGS

PASSWORD = "correct horse battery"
LINES = "() => document.querySelectorAll('.plot polyline, .plot .main-svg').length > 2"
DRAWN = "() => [...document.querySelectorAll('.plot')].slice(0, 3).every((plot) => plot.data && plot.data.length)"
FRAMES = """async () => {
  const gaps = [];
  let last = performance.now();
  for (let i = 0; i < 60; i++) {
    scrollBy(0, 40);
    await new Promise(requestAnimationFrame);
    gaps.push(performance.now() - last);
    last = performance.now();
  }
  return gaps;
}"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=20_000)
    options.add_argument("--repeats", type=int, default=5)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), asked.steps, asked.repeats)


def measure(folder: Path, steps: int, repeats: int) -> None:
    run = run_folder.make(folder / "runs" / "long", 0)
    extra = {f"quantity_{n}": 0.123456789 * n for n in range(12)}  # as many columns as PPO writes
    run_folder.append(run, [run_folder.row(step, **extra) for step in range(steps)])
    log = folder / "log"
    words = [sys.executable, "-m", "heedful.cli.app", "serve", "--home", str(folder / "labels"), "--port", "0"]
    with log.open("w") as stream:
        server = subprocess.Popen([*words, "--runs", str(folder / "runs")], stderr=stream)
    try:
        found = None
        while found is None:
            time.sleep(0.1)
            found = re.search(r"(http\S+)/join/(\S+)\n.* on http", log.read_text())
        seconds, whole, frames = visits(found[1], found[2], repeats)
    finally:
        server.terminate()
        server.wait()
    told = {
        "steps": steps,
        "megabytes": round((run / "metrics.jsonl").stat().st_size / 1e6, 1),
        "loaded_s": [round(one, 2) for one in seconds],
        "loaded_median_s": round(statistics.median(seconds), 2),
        "plots_s": [round(one, 2) for one in whole],
        "plots_median_s": round(statistics.median(whole), 2),
        "frame_ms": {"median": round(statistics.median(frames), 1), "worst": round(max(frames), 1)},
    }
    print(json.dumps(told))


def visits(url: str, token: str, repeats: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds until lines are in view, and until they are plots, for each visit; milliseconds a frame in scrolling."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    seconds, whole, frames = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{url}/join/{token}")
        page.get_by_label("Name").fill("boss")
        page.get_by_label("Password", exact=False).first.fill(PASSWORD)
        page.get_by_label("Password confirmation").fill(PASSWORD)
        page.get_by_role("button", name="Join").click()
        page.wait_for_selector("text=Your projects")
        state = context.storage_state()
        for _ in range(repeats):
            page = browser.new_context(storage_state=state, viewport={"width": 1280, "height": 800}).new_page()
            began = time.monotonic()
            page.goto(f"{url}/runs/show/long/", wait_until="commit")
            page.wait_for_function(LINES, timeout=60_000)
            seconds.append(time.monotonic() - began)
            page.wait_for_function(DRAWN, timeout=60_000)
            whole.append(time.monotonic() - began)
            frames += page.evaluate(FRAMES)
            page.context.close()
        browser.close()
    return seconds, whole, frames


if __name__ == "__main__":
    main()
