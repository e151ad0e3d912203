"""The run directory under full disks, killed processes and cut lines: real limits and real processes, no stand-ins."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from heedful import store
from heedful.errors import RecordError, StoreError
from heedful.journal import Journal
from heedful.store import Run, file_hash, new_folder, read_json, read_metrics, write_bytes, write_json, write_jsonl
from heedful.team import ALONE, Alone, team, working_in

NEXT_STEP = "Free space or choose another folder, then run the same command again"


class Item(BaseModel):
    """A piece of work; its text may hold what other programs take for the end of a line."""

    number: int
    text: str = ""


def python(code: str, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@contextmanager
def running(code: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has said "ready"; killed at the end whatever happens."""
    process = python(code, *arguments)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Files


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [1.0, float("-inf")]}])
def test_json_has_no_nan(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "x.json", {"old": True})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == {"old": True}
    assert names(tmp_path) == ["x.json"]


@settings(deadline=None, max_examples=20)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "below" / "x.json"
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    write_json(path, value)
    assert read_json(path) == value


def test_unreadable_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ')
    for path in (tmp_path / "x.json", tmp_path / "absent.json"):
        with pytest.raises(StoreError, match=rf"{path.name}: cannot be read as JSON"):
            read_json(path)


# The processor's limit on the size of a file is the nearest thing to a full disk that a test may cause.
FULL = """
import resource, signal, sys
from pathlib import Path
from heedful.errors import StoreError
from heedful import store
from heedful.journal import Journal
from pydantic import BaseModel
class Item(BaseModel):
    number: int
    text: str = ""
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
path = Path(sys.argv[1])
big = "x" * 100_000
try:
    if sys.argv[2] == "bytes":
        store.write_bytes(path, big.encode())
    elif sys.argv[2] == "json":
        store.write_json(path, {"big": big})
    elif sys.argv[2] == "jsonl":
        store.write_jsonl(path, [Item(number=1, text=big)])
    elif sys.argv[2] == "journal":
        journal = Journal(path, Item)
        journal.append([Item(number=7), Item(number=8, text=big)])
    elif sys.argv[2] == "folder":
        with store.new_folder(path) as folder:
            (folder / "a").write_text("new")
            (folder / "b").write_text(big)
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["bytes", "json", "jsonl"])
def test_a_write_that_fails_in_the_middle_leaves_the_old_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    said = finish(python(FULL, path, kind))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]
    assert said.startswith(f"{path}: cannot be written (File too large)")
    assert NEXT_STEP in said


def test_a_folder_that_fails_in_the_middle_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("old")
    said = finish(python(FULL, tmp_path / "model", "folder"))
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["a"]
    assert (tmp_path / "model" / "a").read_text() == "old"
    assert said.startswith(f"{tmp_path / 'model'}: cannot be written (File too large)")


def test_a_journal_that_fails_in_the_middle_keeps_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    Journal(path, Item).append([Item(number=1)])
    said = finish(python(FULL, path, "journal"))
    assert said.startswith(f"{path}: cannot be written (File too large)")
    assert [item.number for item in Journal(path, Item).records] in ([1], [1, 7])


WRITERS: dict[str, Callable[[Path], object]] = {
    "write_json": lambda path: write_json(path, {}),
    "write_jsonl": lambda path: write_jsonl(path, []),
    "Journal": lambda path: Journal(path, Item),
    "new_folder": lambda path: new_folder(path).__enter__(),
    "Run": Run,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("place", ["file/below", "file/below/deeper", "/proc/heedful/run"])
def test_an_unwritable_place_is_named_with_the_next_step(tmp_path: Path, place: str, writer: str) -> None:
    (tmp_path / "file").write_text("I am no folder")
    path = tmp_path / place  # an absolute place stays as it is
    if place.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("this system has no /proc")
    with pytest.raises(StoreError) as caught:
        WRITERS[writer](path)
    assert str(caught.value).startswith(f"{path}: cannot be written (")
    assert NEXT_STEP in str(caught.value)
    assert (tmp_path / "file").read_text() == "I am no folder"


def test_a_run_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("I am no folder")
    with pytest.raises(StoreError, match="run: cannot be written"):
        Run(tmp_path / "run")


def test_a_folder_in_place_of_the_file_leaves_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(StoreError, match=r"x\.json: cannot be written"):
        write_json(tmp_path / "x.json", {})
    assert names(tmp_path) == ["x.json"]


KILLED = """
import itertools, sys
from pathlib import Path
from heedful.store import write_json
path = Path(sys.argv[1])
for n in itertools.count():
    write_json(path, {"n": n, "filler": ["x" * 1000] * 2000})
    if n == 0:
        print("ready", flush=True)
"""


def test_a_process_killed_while_writing_leaves_a_readable_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    moments = random.Random(0)
    seen = set()
    for _ in range(10):
        with running(KILLED, path) as process:
            time.sleep(moments.uniform(0.0, 0.08))
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=10) == -signal.SIGKILL
        found = read_json(path)
        assert len(found["filler"]) == 2000
        seen.add(found["n"])
    assert len(seen) > 1, "every process was killed at the same write; the moments tell nothing"


# Folders


def test_new_folder_replaces_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "below" / "model"
    for content in ("old", "new"):
        with new_folder(path) as folder:
            (folder / content).write_text(content)
            (folder / "sub").mkdir()
            (folder / "sub" / "same").write_text(content)
            assert not (path / content).exists(), "the folder shows before it is whole"
    assert names(path) == ["new", "sub"], "files of the old folder are left"
    assert (path / "sub" / "same").read_text() == "new"
    assert names(tmp_path / "below") == ["model"]


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_new_folder_replaces_nothing_after_an_error(tmp_path: Path, old: bool, error: BaseException) -> None:
    path = tmp_path / "model"
    if old:
        path.mkdir()
        (path / "a").write_text("old")
    expected = StoreError if isinstance(error, OSError) else type(error)

    def replace() -> None:
        with new_folder(path) as folder:
            (folder / "a").write_text("new")
            raise error

    with pytest.raises(expected):
        replace()
    assert names(tmp_path) == (["model"] if old else [])
    if old:
        assert (path / "a").read_text() == "old"


def test_new_folder_puts_the_old_one_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "a").write_text("old")
    with pytest.raises(StoreError), new_folder(path) as folder:
        shutil.rmtree(folder)
    assert names(tmp_path) == ["model"]
    assert (path / "a").read_text() == "old"


def test_hash_follows_names_and_contents(tmp_path: Path) -> None:
    def tree(files: dict[str, str]) -> str:
        folder = tmp_path / "tree"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return file_hash(folder)

    first = tree({"a": "1", "sub/b": "2"})
    assert tree({"sub/b": "2", "a": "1"}) == first, "the order of creation counts"
    assert tree({"c": "1", "sub/b": "2"}) != first, "a rename goes unseen"
    assert tree({"a": "1", "b": "2"}) != first, "a move goes unseen"
    assert tree({"a": "1", "sub/b": "3"}) != first
    assert tree({"a": "2", "sub/b": "1"}) != first
    assert tree({"a": "1", "sub/b": "2", "empty": ""}) != first


def test_hash_tells_where_a_name_ends(tmp_path: Path) -> None:
    """A name runs into the content that follows it unless something stands between them."""
    for folder, name, text in (("one", "a", "bc"), ("two", "ab", "c")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    assert file_hash(tmp_path / "one") != file_hash(tmp_path / "two")


def test_hash_of_a_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_hash(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# Journal


def test_journal_drops_a_half_written_last_line_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    Journal(path, Item).append([Item(number=1, text="é\u2028\x85\n"), Item(number=2)])
    whole = path.read_bytes()
    for cut in (b"{", b'{"number": 3', '{"number": 3, "text": "é'.encode()[:-1], b'{"number": 3}'):
        path.write_bytes(whole + cut)
        journal = Journal(path, Item)
        assert [(item.number, item.text) for item in journal.records] == [(1, "é\u2028\x85\n"), (2, "")]
        assert path.read_bytes() == whole
    journal.append([Item(number=3)])
    assert [item.number for item in journal.records] == [1, 2, 3]
    assert [item.number for item in Journal(path, Item).records] == [1, 2, 3]


def test_journal_cut_anywhere_keeps_the_lines_before(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    Journal(path, Item).append([Item(number=n, text="ü") for n in range(3)])
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert [item.number for item in Journal(path, Item).records] == list(range(whole[:length].count(b"\n")))


def test_journal_names_a_broken_line_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"number": 1}\n{"number": \n{"number": 3}\n')
    with pytest.raises(RecordError, match=r"x\.jsonl:2: "):
        Journal(path, Item)


def test_journal_keep_drops_on_disk_as_well(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    journal = Journal(path, Item)
    journal.append([Item(number=n) for n in range(5)])
    journal.keep(lambda item: item.number % 2 == 0)
    journal.append([Item(number=6)])
    for found in (journal, Journal(path, Item)):
        assert [item.number for item in found.records] == [0, 2, 4, 6]


# Metrics


def test_metrics_pass_over_a_cut_last_line_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(tmp_path) == []
    path.write_text('{"step": 0}\n{"step": 1}\n{"st')
    assert read_metrics(tmp_path) == [{"step": 0}, {"step": 1}]
    path.write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl:2: not a JSON object"):
        read_metrics(tmp_path)
    path.write_text('{"step": 0}\n{"st\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl:2: not a JSON object"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("line", ["5", "null", '["step"]'])
def test_a_metrics_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 0}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl:2: not a JSON object"):
        read_metrics(tmp_path)


# Stages


class Work:
    """Counts its calls and adds a line to its output each time, so that a folder that was kept shows."""

    def __init__(self, run: Run, name: str = "sample") -> None:
        self.calls, self.path = 0, run.folder(name) / "out.txt"

    def __call__(self) -> None:
        self.calls += 1
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a") as file:
            file.write("line\n")

    @property
    def lines(self) -> int:
        return self.path.read_text().count("\n")


def test_a_stage_runs_once_for_equal_settings_and_inputs(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("input")
    for process in range(3):  # as three commands one after the other
        with Run(tmp_path / "run") as run:
            work = Work(run)
            ran = run.stage("sample", work, settings={"n": 1, "list": [1, 2]}, inputs=[tmp_path / "in.txt"])
            assert (ran, work.calls) == (process == 0, int(process == 0))
            assert work.lines == 1
    entry = read_json(tmp_path / "run" / "manifest.json")["stages"]["sample"]
    assert entry["state"] == "done"
    assert entry["finished"] >= entry["started"]


def test_a_stage_with_tuples_in_its_settings_runs_once_within_a_process(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        work = Work(run)
        for expected in (True, False):
            assert run.stage("sample", work, settings={"targets": ("q", "v")}) is expected


@pytest.mark.parametrize("change", ["setting", "content", "input", "order"])
def test_a_change_starts_the_stage_anew(tmp_path: Path, change: str) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("1")
    two.write_text("2")
    inputs, wanted = [one, two], {"n": 1}
    with Run(tmp_path / "run") as run:
        run.stage("sample", Work(run), settings=wanted, inputs=inputs)
    if change == "setting":
        wanted = {"n": 2}
    elif change == "content":
        one.write_text("3")
    elif change == "input":
        inputs = [one]
    else:
        inputs = [two, one]
    with Run(tmp_path / "run") as run:
        work = Work(run)
        assert run.stage("sample", work, settings=wanted, inputs=inputs)
        assert work.lines == 1, "the old output was still there"
        assert not run.stage("sample", work, settings=wanted, inputs=inputs)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_an_interrupted_stage_goes_on_from_its_folder(tmp_path: Path, error: BaseException) -> None:
    def fails() -> None:
        work()
        raise error

    with Run(tmp_path / "run") as run:
        work = Work(run)
        with pytest.raises(type(error)):
            run.stage("sample", fails, settings={"n": 1})
    assert read_json(tmp_path / "run" / "manifest.json")["stages"]["sample"]["state"] == "running"
    with Run(tmp_path / "run") as run:
        work = Work(run)
        assert run.stage("sample", work, settings={"n": 1})
        assert work.lines == 2, "what the first attempt left is gone"
        assert not run.stage("sample", work, settings={"n": 1})


def test_an_interrupted_stage_with_other_settings_starts_anew(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        work = Work(run)

        def fails() -> None:
            work()
            raise RuntimeError

        with pytest.raises(RuntimeError):
            run.stage("sample", fails, settings={"n": 1})
        run.stage("sample", work, settings={"n": 2})
        assert work.lines == 1


def test_a_stage_that_is_cut_while_its_folder_is_emptied_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings change, the folder is half deleted, the process dies, the settings change back: the output must come back."""
    with Run(tmp_path / "run") as run:
        run.stage("sample", Work(run), settings={"n": 1})

    def cut(folder: Path, **_: object) -> None:
        (folder / "out.txt").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, Run(tmp_path / "run") as run:
        patch.setattr(store.shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            run.stage("sample", Work(run), settings={"n": 2})
    with Run(tmp_path / "run") as run:
        work = Work(run)
        run.stage("sample", work, settings={"n": 1})
        assert work.path.exists(), "the stage counts as done and its output is gone"


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    """A file of an earlier stage that somebody deleted: one paragraph, not a traceback."""
    with Run(tmp_path / "run") as run, pytest.raises(StoreError, match=r"absent\.jsonl"):
        run.stage("sample", Work(run), settings={}, inputs=[tmp_path / "absent.jsonl"])


def test_forget_from_drops_a_stage_and_all_after_it(tmp_path: Path) -> None:
    order = ["sample", "label", "ppo"]
    with Run(tmp_path / "run") as run:
        for name in order:
            run.stage(name, Work(run, name), settings={})
        run.forget_from("label", order)
        assert [run.folder(name).exists() for name in order] == [True, False, False]
    with Run(tmp_path / "run") as run:
        assert [run.stage(name, Work(run, name), settings={}) for name in order] == [False, True, True]


def test_seconds_add_up_over_interruptions(tmp_path: Path) -> None:
    def slow_failure() -> None:
        time.sleep(0.2)
        raise RuntimeError

    with Run(tmp_path / "run") as run, pytest.raises(RuntimeError):
        run.stage("sample", slow_failure, settings={})
    # What the interrupted attempt took is known to this process only, unless it was written down.
    assert read_json(tmp_path / "run" / "manifest.json")["stages"]["sample"].get("seconds", 0) >= 0.2


HOLDER = """
import sys, time
from pathlib import Path
from heedful.store import Run
run = Run(Path(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with running(HOLDER, path):
        with pytest.raises(StoreError, match="another process is working in this folder") as caught:
            Run(path)
        assert str(path) in str(caught.value)
        assert "choose another --dir" in str(caught.value)
    with Run(path):  # the lock of a killed process is no lock
        pass
    finish(python(HOLDER.replace("time.sleep(60)", ""), path))


def test_a_corrupt_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"stages": ')
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read as JSON"):
        Run(tmp_path)


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", bytes(range(256)))
    assert (tmp_path / "x").read_bytes() == bytes(range(256))
    assert os.listdir(tmp_path) == ["x"]


def test_a_configuration_that_a_person_wrote_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "heedful.toml"
    own.write_text("seed = 1  # lucky\n")
    with Run(tmp_path) as run:
        run.keep_config("seed = 1\n", lambda path: "seed = 1" in path.read_text())
        assert own.read_text() == "seed = 1  # lucky\n"
        with pytest.raises(StoreError, match=r"heedful.toml: holds other settings than this run.*choose another folder"):
            run.keep_config("seed = 2\n", lambda path: "seed = 2" in path.read_text())
    assert own.read_text() == "seed = 1  # lucky\n"


def test_a_configuration_that_heedful_wrote_follows_the_run(tmp_path: Path) -> None:
    for text in ("seed = 1\n", "seed = 2\n"):
        with Run(tmp_path) as run:
            run.keep_config(text, lambda path: False)
        assert (tmp_path / "heedful.toml").read_text() == text
    (tmp_path / "heedful.toml").write_text("seed = 3\n")  # edited by hand since
    with Run(tmp_path) as run, pytest.raises(StoreError, match="holds other settings"):
        run.keep_config("seed = 2\n", lambda path: False)


class Second(Alone):
    """Beside it this process is the first of two, and nobody answers."""

    size = 2

    def exchange(self, mine: Any, at: str) -> list[Any]:
        return [mine, mine]


@pytest.mark.parametrize(("stage", "alone"), [("label", True), ("consensus", True), ("report", True), ("evaluate", False)])
def test_what_one_member_goes_through_it_shares_with_nobody(tmp_path: Path, stage: str, alone: bool) -> None:
    teams: list[object] = []
    with working_in(Second()), Run(tmp_path / "run") as run:
        assert run.stage(stage, lambda: teams.append(team()), settings={})
    assert [one is ALONE for one in teams] == [alone]
