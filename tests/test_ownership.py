"""Files that are not heedful's own: they are refused by name, and they are still there afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heedful import store
from heedful.errors import StoreError
from heedful.store import Run, named_folder

ORDER = ["sample", "label", "ppo"]


def write(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def fill(run: Run, name: str, **settings: int) -> bool:
    def work() -> None:
        write(run.folder(name) / "out.txt", "made")

    return run.stage(name, work, settings=settings)


def test_a_stage_refuses_a_folder_that_it_did_not_make(tmp_path: Path) -> None:
    mine = write(tmp_path / "pj" / "label" / "deep" / "mine.jsonl")
    with Run(tmp_path / "pj") as run:
        with pytest.raises(StoreError, match=r"label: holds what heedful did not write \(deep/mine\.jsonl\)") as caught:
            fill(run, "label")
        with pytest.raises(StoreError):
            run.check(ORDER)
        run.forget_from("sample", ORDER)
    assert mine.read_text() == "mine"
    assert str(caught.value).endswith("move it away, or choose another run directory")
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_a_stage_folder_is_refused(tmp_path: Path) -> None:
    mine = write(tmp_path / "pj" / "label")
    with Run(tmp_path / "pj") as run, pytest.raises(StoreError, match="did not write"):
        fill(run, "label")
    assert mine.read_text() == "mine"


def test_a_stage_takes_an_empty_folder_and_clears_its_own(tmp_path: Path) -> None:
    (tmp_path / "label").mkdir()
    with Run(tmp_path) as run:
        assert fill(run, "label", n=1)
        write(tmp_path / "label" / "left-over.txt")
        assert fill(run, "label", n=2)
    assert [path.name for path in (tmp_path / "label").iterdir()] == ["out.txt"]


def test_a_folder_that_was_being_cleared_is_still_the_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(folder: Path, **_: object) -> None:
        raise KeyboardInterrupt

    with Run(tmp_path) as run:
        fill(run, "label", n=1)
    with monkeypatch.context() as patch, Run(tmp_path) as run:
        patch.setattr(store.shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            fill(run, "label", n=2)
    with Run(tmp_path) as run:
        assert fill(run, "label", n=1)
        assert not fill(run, "label", n=1)


@pytest.mark.parametrize("link", ["none", "to", "within"])
def test_an_input_inside_the_folder_to_clear_is_refused_and_kept(tmp_path: Path, link: str) -> None:
    with Run(tmp_path / "r1") as run:
        fill(run, "label", n=1)
        given = kept = tmp_path / "r1" / "label" / "out.txt"
        if link == "to":
            given = tmp_path / "judgements.jsonl"
            given.symlink_to(kept)
        elif link == "within":
            given = kept.with_name("link.jsonl")
            given.symlink_to(write(tmp_path / "elsewhere.jsonl"))
        with pytest.raises(StoreError, match=r": lies in .*r1/label, which stage 'label' empties") as caught:
            run.stage("label", lambda: None, settings={"n": 2}, inputs=[given])
        with pytest.raises(StoreError, match="lies in"):
            run.forget_from("sample", ORDER, [given])
        assert str(caught.value).startswith(str(given))
        assert given.exists()
        assert kept.read_text() == "made"
        assert run.manifest["stages"]["label"]["state"] == "done"


def test_a_named_folder_replaces_only_what_it_wrote(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    thesis = write(target / "chapters" / "thesis.txt")

    def export(text: str) -> None:
        with named_folder(target) as folder:
            write(folder / "sub" / "model.bin", text)

    with pytest.raises(StoreError, match=r"precious: holds what .* \(chapters/thesis\.txt\).*choose another folder"):
        export("1")
    assert thesis.read_text() == "mine"
    thesis.unlink()
    for text in ("1", "2"):
        export(text)
        assert (target / "sub" / "model.bin").read_text() == text
    write(thesis)
    with pytest.raises(StoreError, match="thesis"):
        export("3")
    assert (target / "sub" / "model.bin").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious"]


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', '{"files": [[]]}'])
def test_a_broken_mark_vouches_for_nothing(tmp_path: Path, text: str) -> None:
    write(tmp_path / "out" / "heedful-files.json", text)
    with pytest.raises(StoreError, match="choose another folder"), named_folder(tmp_path / "out"):
        pass


def test_a_file_or_a_link_in_place_of_a_named_folder_stays(tmp_path: Path) -> None:
    mine = write(tmp_path / "thesis.txt")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    for place in (mine, tmp_path / "dangling"):
        with pytest.raises(StoreError, match="choose another folder"), named_folder(place):
            pass
    assert mine.read_text() == "mine"
    assert (tmp_path / "dangling").is_symlink()


def test_the_mark_is_json_with_a_word_for_the_reader(tmp_path: Path) -> None:
    with named_folder(tmp_path / "out") as folder:
        write(folder / "a" / "b")
    found = json.loads((tmp_path / "out" / "heedful-files.json").read_text())
    assert found["files"] == ["a/b"]
    assert "heedful" in found["about"]
