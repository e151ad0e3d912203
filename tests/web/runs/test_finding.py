"""Which runs are found, and where they stand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import run_folder

from heedful.errors import DataError
from heedful.progress import FILE, Pace, read_progress, telling
from heedful.store import Run, is_held, write_json
from heedful.web.home import configure
from heedful.web.runs.catalogue import find_run, find_runs
from heedful.web.runs.standing import config_of, standing

HOLDER = "import sys, time; from pathlib import Path; from heedful.store import Run\n"
HOLDER += "with Run(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"


def test_runs_are_named_by_their_path(tmp_path: Path) -> None:
    for name in ("runs/first", "runs/team/second", "runs/.hidden/third", "runs/first/inside", "other/first"):
        run_folder.make(tmp_path / name, 1)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "other", target_is_directory=True)
    roots = [tmp_path / "runs", tmp_path / "other"]
    assert {run.name: run.path for run in find_runs(roots).runs} == {
        "first": tmp_path / "runs" / "first",
        "team/second": tmp_path / "runs" / "team" / "second",
        "other/first": tmp_path / "other" / "first",
    }
    assert [run.name for run in find_runs([tmp_path / "runs" / "first"]).runs] == ["first"]


@pytest.mark.parametrize("name", ["../other", "first/../../other", "/etc", "", ".", "first/"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    run_folder.make(tmp_path / "runs" / "first", 1)
    run_folder.make(tmp_path / "other", 1)
    assert find_run([tmp_path / "runs"], name) is None


def test_names_that_no_address_holds_are_counted(tmp_path: Path) -> None:
    for name in ("a b?#%20", "größe", "new\nline", "x" * 120 + "/" + "y" * 120 + "/" + "z" * 120):
        run_folder.make(tmp_path / name, 1)
    os.makedirs(os.fsencode(tmp_path) + b"/\xff")
    (tmp_path / os.fsdecode(b"\xff") / "manifest.json").write_text("{}")
    found = find_runs([tmp_path])
    assert [run.name for run in found.runs] == ["a b?#%20", "größe"]
    assert found.unnamed == 3


def test_a_root_that_is_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heedful.web.runs.catalogue.MOST_FOLDERS", 3)
    for name in "abcde":
        run_folder.make(tmp_path / name, 1)
    assert find_runs([tmp_path]).cut


def test_who_asks_at_once_keeps_nobody_out(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 3)
    with Run(run):
        pass
    (run / ".lock").touch()
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(lambda _: is_held(run), range(400)))


def test_a_run_is_held_while_its_process_lives_and_asking_keeps_nobody_out(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 3)
    assert not is_held(run)
    assert not (run / ".lock").exists()
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_held(run)
        assert standing(run, config_of(run)).state == "running"
    finally:
        process.kill()
        process.wait()
    assert not is_held(run)
    assert standing(run, config_of(run)).state == "interrupted"
    with Run(run):
        pass


def test_a_run_tells_how_far_it_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_folder.make(tmp_path / "run", 3)
    heard = []
    now = [100.0]
    monkeypatch.setattr("heedful.progress.time.monotonic", lambda: now[0])
    tell = telling(run, lambda *told: heard.append(told))
    tell("ppo", 40, 400, "")  # resumed at 40
    assert standing(run, config_of(run)).eta_s is None
    now[0] += 60
    tell("ppo", 50, 400, "reward 0.5")
    assert read_progress(run) == pytest.approx(
        {"stage": "ppo", "done": 50, "total": 400, "note": "reward 0.5", "eta_s": 60 / 10 * 350}
        | {"time": read_progress(run)["time"]}  # type: ignore[index]
    )
    now[0] += 0.5
    tell("ppo", 51, 400, "")
    assert read_progress(run)["done"] == 50, "not at every step"  # type: ignore[index]
    tell("evaluate", 1, 2, "")
    assert read_progress(run)["stage"] == "evaluate"  # type: ignore[index]
    assert [told[1] for told in heard] == [40, 50, 51, 1]
    told = standing(run, config_of(run))
    assert (told.stage, told.done, told.total, told.eta_s) == ("evaluate", 1, 2, None), "nobody is at work"
    os.utime(run / "manifest.json", (time.time() + 60, time.time() + 60))
    assert standing(run, config_of(run)).total is None, "a process after that one has begun a stage"


def test_a_full_disk_does_not_end_a_run_for_its_progress(tmp_path: Path) -> None:
    heard = []
    telling(tmp_path / "file" / "below", lambda *told: heard.append(told))("ppo", 1, 2, "")
    (tmp_path / "stone").write_text("no folder")
    telling(tmp_path / "stone", lambda *told: heard.append(told))("ppo", 1, 2, "")
    assert len(heard) == 2


def test_pace_counts_from_where_it_began() -> None:
    pace = Pace()
    assert pace.eta_s("sample", 5, 10) is None
    assert pace.eta_s("other", 0, 0) is None


@pytest.mark.parametrize("text", ["", "[]", '{"stages": 3}', '{"stages": {"ppo": 3}}', '{"stages"'])
def test_a_manifest_that_cannot_be_read_is_said(tmp_path: Path, text: str) -> None:
    run = run_folder.make(tmp_path / "run", 3)
    (run / "manifest.json").write_text(text)
    assert standing(run, None).state == "broken"


def test_settings_of_another_version_are_none(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 3)
    (run / "heedful.toml").write_text("[ppo]\nfrom_the_future = 1\n")
    assert config_of(run) is None
    assert [stage["name"] for stage in standing(run, None).stages] == ["reward", "ppo"]


def test_a_flow_that_stopped_between_stages_is_unfinished(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 3, state="done")
    assert standing(run, config_of(run)).state == "unfinished", "reward and ppo are done, evaluate and report are to come"
    write_json(run / "manifest.json", {"stages": {"ppo": {"state": "done"}}})
    assert standing(run, config_of(run)).state == "done", "heedful align has no other stages"
    write_json(run / "manifest.json", {"stages": {}})
    assert standing(run, config_of(run)).state == "unfinished"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stage": 1'])
def test_progress_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_progress(tmp_path) is None


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    run = run_folder.make(tmp_path / "run", 3, state="done")
    write_json(run / "manifest.json", {"stages": {"ppo": {"state": "done"}}})
    write_json(run / FILE, {"stage": "ppo", "done": 3, "total": 3, "note": "", "time": 1.0, "eta_s": 0.0})
    told = standing(run, config_of(run))
    assert (told.state, told.stage, told.eta_s, told.total) == ("done", "ppo", None, None)


def test_a_folder_of_runs_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; --runs names one"):
        configure(tmp_path / "labels", runs=[tmp_path / "nowhere"])
    assert not (tmp_path / "labels").exists()
