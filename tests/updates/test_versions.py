"""Which policy of a run is in use, and what its log says, on folders that hold no weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from said_of_answers import one_answer

from heedful.errors import StoreError
from heedful.hearing import Hearing
from heedful.opinions import read_opinions
from heedful.store import write_json
from heedful.version_log import Version, Versions, standing_of
from heedful.versions import policy_in_use, root_of
from heedful.web.runs.catalogue import find_runs

LEARNED = {"why_not": [], "method": "kto", "num_new": 3}


def policy(folder: Path, name: str, *, at: int) -> Path:
    """at: seconds, as of when it was saved."""
    write_json(folder / "heedful.json", {"base": "tiny", "policy_version": name})
    os.utime(folder / "heedful.json", (at, at))
    return folder


def rounds(run: Path, number: int) -> None:
    for one in range(1, number + 1):
        policy(run / f"round-{one}" / "ppo" / "policy", f"round {one}", at=one)
        write_json(run / f"round-{one}" / "manifest.json", {"stages": {}})


def promote(run: Path, number: int, *, promoted: bool = True) -> Version:
    versions = Versions(run)
    made = policy(run / "versions" / str(number) / "kto" / "policy", f"version {number}", at=100 + number)
    write_json(run / "versions" / str(number) / "manifest.json", {"stages": {}})
    return versions.add(made, parent=versions.in_use, promoted=promoted, **LEARNED)


@pytest.mark.parametrize("promoted", [True, False])
def test_a_round_after_an_update_is_not_passed_over(promoted: bool, tmp_path: Path) -> None:
    rounds(tmp_path, 2)
    promote(tmp_path, 1, promoted=promoted)
    assert Versions(tmp_path).listed[0].policy == "round-2/ppo/policy"
    rounds(tmp_path, 3)
    with pytest.raises(StoreError, match=r"round-3/ppo/policy: was made after version 0, round-2/ppo/policy"):
        Versions(tmp_path)
    (tmp_path / "versions").rename(tmp_path / "versions-of-round-2")
    assert Versions(tmp_path).in_use.policy == "round-3/ppo/policy"
    assert policy_in_use(tmp_path) == tmp_path / "round-3" / "ppo" / "policy"


def test_a_version_has_the_parent_that_it_went_on_from(tmp_path: Path) -> None:
    """Somebody goes back to version 0 while the update of version 1 trains."""
    policy(tmp_path / "ppo" / "policy", "version 0", at=0)
    promote(tmp_path, 1)
    begun = Versions(tmp_path)
    parent = begun.in_use
    Versions(tmp_path).roll_back(0)
    made = policy(tmp_path / "versions" / "2" / "kto" / "policy", "version 2", at=102)
    added = begun.add(made, parent=parent, promoted=True, **LEARNED)
    assert [one.version for one in begun.ancestry(added)] == [2, 1, 0]
    assert Versions(tmp_path).entry(2).parent == 1


def test_a_round_answers_with_the_version_that_goes_on_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(tmp_path, 2)
    first, second = (tmp_path / f"round-{number}" for number in (1, 2))
    assert policy_in_use(second) == second / "ppo" / "policy"
    promote(tmp_path, 1)
    one = tmp_path / "versions" / "1"
    promote(tmp_path, 2, promoted=False)
    assert policy_in_use(tmp_path) == policy_in_use(second) == one / "kto" / "policy"
    monkeypatch.chdir(second)
    assert policy_in_use(Path()) == one / "kto" / "policy"
    assert policy_in_use(first) == first / "ppo" / "policy"
    assert policy_in_use(one) == one / "kto" / "policy"
    rounds(tmp_path, 3)
    assert policy_in_use(tmp_path / "round-3") == tmp_path / "round-3" / "ppo" / "policy"
    (tmp_path / "versions" / "in-use.json").unlink()
    assert policy_in_use(second) == second / "ppo" / "policy"


def test_a_chat_says_who_answers_and_what_does_not(tmp_path: Path) -> None:
    def told(place: str) -> str:
        policy = policy_in_use(tmp_path / place)
        assert policy is not None
        return standing_of(policy)

    plain = policy(tmp_path / "plain" / "ppo" / "policy", "alone", at=0)
    assert standing_of(plain) == "", "there is nothing to choose from"
    rounds(tmp_path / "house", 2)
    assert told("house") == "round 2 answers"
    assert told("house/round-1") == "round 1 answers; later, and not answering: round 2"
    write_json(tmp_path / "house" / "round-3" / "manifest.json", {"stages": {}})
    assert told("house") == "round 2 answers; later, and not answering: round 3 (no policy yet)"
    (tmp_path / "house" / "round-3" / "manifest.json").unlink()
    promote(tmp_path / "house", 1)
    assert told("house") == "version 1 (from round 2) answers"
    assert told("house/round-1") == "round 1 answers; later, and not answering: round 2, version 1 (in use)"
    promote(tmp_path / "house", 2, promoted=False)
    assert told("house") == "version 1 (from round 2) answers; later, and not answering: version 2 (refused)"
    assert told("house/versions/2") == "version 2 (from round 2) answers"
    Versions(tmp_path / "house").roll_back(0)
    assert told("house") == "version 0 (from round 2) answers; later, and not answering: version 1, version 2 (refused)"
    rounds(tmp_path / "house", 3)
    assert told("house").endswith("not answering: round 3, version 1, version 2 (refused)")
    rounds(tmp_path / "house", 4)
    assert told("house").endswith("not answering: ... round 4, version 1, version 2 (refused)")


def test_a_hub_id_stands_in_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    assert standing_of(Path("smollm2-135m")) == standing_of(Path("hub/name")) == ""
    assert standing_of(Path("round-2/ppo/policy")) == "round 2 answers"


def test_a_damaged_log_is_said_and_ends_no_chat(tmp_path: Path) -> None:
    answers = policy(tmp_path / "ppo" / "policy", "version 0", at=0)
    promote(tmp_path, 1)
    (tmp_path / "versions" / "versions.jsonl").write_text("{}\n")
    assert standing_of(answers).startswith("which version answers is unknown (")
    assert "versions.jsonl:1" in standing_of(answers)


def test_the_server_lists_rounds_and_no_versions(tmp_path: Path) -> None:
    rounds(tmp_path / "runs" / "house", 2)
    promote(tmp_path / "runs" / "house", 1)
    write_json(tmp_path / "runs" / "versions" / "manifest.json", {})
    assert [run.name for run in find_runs([tmp_path / "runs"]).runs] == ["house/round-1", "house/round-2", "versions"]


def test_parts_of_a_run_belong_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(tmp_path / "house", 2)
    write_json(tmp_path / "plain" / "manifest.json", {})
    for name in ("house/round-2", "house/versions/1", "plain/versions/3"):
        assert root_of(tmp_path / name) == tmp_path / name.partition("/")[0]
    # Names alone make nobody a part of anything.
    for name in ("house", "plain", "plain/round-2", "runs/versions/1", "house/round-two", "versions"):
        assert root_of(tmp_path / name) == tmp_path / name
    monkeypatch.chdir(tmp_path / "house" / "round-2")
    assert root_of(Path()) == tmp_path / "house"
    with pytest.raises(StoreError, match=r"round-2: is part of .*house, which has the versions; name"):
        Versions(tmp_path / "house" / "round-2")


@pytest.mark.parametrize("part", [".", "round-2", "versions/1"])
def test_what_is_said_of_a_part_is_kept_with_the_run(part: str, tmp_path: Path) -> None:
    rounds(tmp_path, 2)
    promote(tmp_path, 1)
    Hearing(tmp_path / part, one_answer(), seed=0, who="ada").take("/up")
    assert list(tmp_path.rglob("votes.jsonl")) == [tmp_path / "feedback" / "votes.jsonl"]
    assert read_opinions(tmp_path / "feedback").completions[0].policy_version == "version 1"
