"""The versions of a run's policy: which there were, which was promoted and why not, and which is in use.

RUN/versions/versions.jsonl has a line a version; version 0 is what the run itself made. RUN/versions/in-use.json names the one
in use. A version's files are never changed, so going back to one gives its outputs to the bit.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from heedful.errors import HeedfulError, StoreError
from heedful.journal import Journal
from heedful.records import read_jsonl
from heedful.rounds import folder_of, rounds_in
from heedful.store import file_hash, write_json
from heedful.versions import ABOUT, FOLDER, IN_USE, LOG, newest_policy, policy_in_use, root_of

MOST_TOLD = 3  # of what came later, in one line


class Version(BaseModel):
    """policy: its folder, seen from the run. digest: of its files. why_not: what spoke against a version that was not promoted.

    parent: the version that it went on from; None for the run's own. num_new: votes and corrections that it learned from.
    """

    version: int
    parent: int | None = None
    policy: str
    digest: str
    promoted: bool
    why_not: list[str] = []
    method: str = ""
    num_new: int = 0
    created_at: str


class Versions:
    """Of one run. Raises StoreError where there is no policy, where the log is of another one, and for a part of a run."""

    def __init__(self, run: Path) -> None:
        if (root := root_of(run)) != run:
            raise StoreError(f"{run}: is part of {root}, which has the versions; name {root}")
        self.run = run
        self.log = run / FOLDER / LOG
        self.listed = read_jsonl(self.log, Version, unique="version") if self.log.is_file() else []
        first = newest_policy(run)
        if first is None:
            raise StoreError(f"{run}: holds no policy yet; finish 'heedful run' or 'heedful align' first")
        if not self.listed:
            self.listed = [_entry(run, 0, None, first, promoted=True)]
        self.require_unchanged(self.listed[0])
        if first != self.path(self.listed[0]):
            raise StoreError(
                f"{first}: was made after version 0, {self.listed[0].policy}, from which the versions go on, as by another "
                f"round; to use it, move {run / FOLDER} away and begin its versions anew"
            )

    def entry(self, version: int) -> Version:
        for one in self.listed:
            if one.version == version:
                return one
        known = ", ".join(str(one.version) for one in self.listed)
        raise StoreError(f"{self.run}: there is no version {version}; there are {known}")

    def path(self, one: Version) -> Path:
        return self.run / one.policy

    @property
    def in_use(self) -> Version:
        chosen = policy_in_use(self.run)
        return next((one for one in self.listed if chosen is not None and self.path(one) == chosen), self.listed[0])

    @property
    def next(self) -> int:
        return self.listed[-1].version + 1

    def ancestry(self, one: Version) -> list[Version]:
        """It and all that it went on from, the run's own last."""
        found = [one]
        while found[-1].parent is not None:
            found.append(self.entry(found[-1].parent))
        return found

    def require_unchanged(self, one: Version) -> None:
        if not (self.path(one) / ABOUT).is_file() or file_hash(self.path(one)) != one.digest:
            raise StoreError(
                f"{self.path(one)}: is not version {one.version} any more, as after another 'heedful run'; move "
                f"{self.run / FOLDER} away to begin its versions anew"
            )

    def add(self, policy: Path, *, parent: Version, promoted: bool, why_not: list[str], method: str, num_new: int) -> Version:
        """Lists a version; a promoted one is in use from now on.

        parent: what it went on from, which need not be in use any more.
        """
        made = _entry(
            *(self.run, self.next, parent.version, policy),
            promoted=promoted,
            why_not=why_not,
            method=method,
            num_new=num_new,
        )
        journal = Journal(self.log, Version)
        journal.append([*(self.listed if not journal.records else []), made])
        self.listed.append(made)
        if promoted:
            self._use(made)
        return made

    def roll_back(self, version: int | None) -> Version:
        """Takes this version into use again; None: the one that the version in use went on from.

        Raises StoreError for one that does not exist, was never promoted, or whose files have changed.
        """
        if version is None:
            parent = self.in_use.parent
            if parent is None:
                raise StoreError(f"{self.run}: version {self.in_use.version} is in use, and there is none before it")
            version = parent
        chosen = self.entry(version)
        if not chosen.promoted:
            raise StoreError(f"{self.run}: version {version} was never promoted ({'; '.join(chosen.why_not)})")
        self.require_unchanged(chosen)
        self._use(chosen)
        return chosen

    def _use(self, one: Version) -> None:
        write_json(self.run / FOLDER / IN_USE, {"version": one.version, "policy": one.policy})


# Said of a policy


def standing_of(policy: Path) -> str:
    """One line: which round and version this policy is, and what came later and does not answer.

    "" for what is no saved policy, as a hub id, or part of no run with rounds or versions. With a log that cannot be read it
    says that: talking goes on.
    """
    if not (policy / ABOUT).is_file():
        return ""
    root = root_of(policy.parent.parent)
    rounds = {folder_of(root, number): number for number in range(1, len(rounds_in(root)) + 1)}
    try:
        log = root / FOLDER / LOG
        listed = read_jsonl(log, Version, unique="version") if log.is_file() else []
    except HeedfulError as error:
        return f"which version answers is unknown ({error})"
    if not rounds and len(listed) < 2:
        return ""
    ours = policy.resolve()
    version = next((one for one in listed if (root / one.policy).resolve() == ours), None)
    first = ours if version is None else (root / listed[0].policy).resolve()
    number = next((number for place, number in rounds.items() if first.is_relative_to(place.resolve())), 0)
    if version is None or (version.version == 0 and len(listed) < 2):
        name = f"round {number}" if number else "a policy that is in no log"
    else:
        name = f"version {version.version}" + (f" (from round {number})" if number else "")
    later = [_named_round(place, one) for place, one in rounds.items() if one > number]
    used = policy_in_use(root)
    for one in listed:
        if one.version > (version.version if version else 0):
            here = used is not None and (root / one.policy).resolve() == used.resolve()
            note = " (in use)" if here else "" if one.promoted else " (refused)"
            later.append(f"version {one.version}{note}")
    more = "... " if len(later) > MOST_TOLD else ""
    rest = f"; later, and not answering: {more}{', '.join(later[-MOST_TOLD:])}" if later else ""
    return f"{name} answers{rest}"


def _named_round(place: Path, number: int) -> str:
    return f"round {number}" + ("" if newest_policy(place) else " (no policy yet)")


def _entry(
    run: Path,
    version: int,
    parent: int | None,
    policy: Path,
    *,
    promoted: bool,
    why_not: list[str] | None = None,
    method: str = "",
    num_new: int = 0,
) -> Version:
    return Version(
        version=version,
        parent=parent,
        policy=policy.relative_to(run).as_posix(),
        digest=file_hash(policy),
        promoted=promoted,
        why_not=why_not or [],
        method=method,
        num_new=num_new,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
