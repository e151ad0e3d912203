"""Which policy of a run is in use, and what its log says, on folders that hold no weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heedful.errors import StoreError
from heedful.store import write_json
from heedful.version_log import Version, Versions
from heedful.versions import policy_in_use

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
