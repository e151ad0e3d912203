"""The script behind `make links`; that the pages are in step with it is for test_docs.py to say."""

from __future__ import annotations

from pathlib import Path

import line_links
import pytest

DEFINITIONS = """
from elsewhere import imported
LIMIT = 3
width: int = 4


@decorated
def gae(rewards):
    inner = 1


class Head:
    size: int

    def __init__(self):
        self.held = 1

    def save(self):
        pass


class Body:
    def save(self):
        pass

    async def load(self):
        pass
"""


def test_definitions_are_found_with_their_lines() -> None:
    assert line_links.definitions(DEFINITIONS) == {
        "LIMIT": 3,
        "width": 4,
        "gae": 8,
        "Head": 12,
        "Head.size": 13,
        "Head.__init__": 15,
        "Head.save": 18,
        "Body": 22,
        "Body.save": 23,
        "Body.load": 26,
    }


@pytest.mark.parametrize(
    ("link", "right"),
    [
        ("[`gae`](a.py)", "[`gae`](a.py#L8)"),
        ("[`gae`](a.py#L9)", "[`gae`](a.py#L8)"),
        ("[`gae`](a.py#gae)", "[`gae`](a.py#L8)"),
        ("[`LIMIT`](a.py#L1)", "[`LIMIT`](a.py#L3)"),
        ("[`Body.save`](a.py)", "[`Body.save`](a.py#L23)"),
        ("[`load`](a.py)", "[`load`](a.py#L26)"),
        ("[`gae`,\n`Head`](a.py)", "[`gae`](a.py#L8),\n[`Head`](a.py#L12)"),
        ("[the estimate](a.py#L8)", "[the estimate](a.py)"),
    ],
)
def test_a_link_is_put_right_once_and_for_all(tmp_path: Path, link: str, right: str) -> None:
    (tmp_path / "a.py").write_text(DEFINITIONS)
    first = line_links.revise(tmp_path / "page.md", f"One\n{link} two.\n")
    assert first.text == f"One\n{right} two.\n"
    assert len(first.stale) == 1
    assert first.stale[0].startswith("line 2: ")
    assert line_links.revise(tmp_path / "page.md", first.text) == (first.text, [], [])


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[`absent`](a.py#L8)", "`absent` is not defined"),
        ("[`imported`](a.py)", "`imported` is not defined"),
        ("[`Head.load`](a.py)", "`Head.load` is not defined"),
        ("[`gae`, `absent`](a.py)", "`absent` is not defined"),
        ("[`save`](a.py)", "`save` is one of Head.save and Body.save: say which"),
        ("[`gae`](b.py)", "no such file"),
    ],
)
def test_a_name_that_has_no_line_is_left_to_a_person(tmp_path: Path, link: str, said: str) -> None:
    (tmp_path / "a.py").write_text(DEFINITIONS)
    revised = line_links.revise(tmp_path / "page.md", link)
    assert (revised.text, revised.stale) == (link, [])
    assert [found.split(": ", 2)[2] for found in revised.unknown] == [said]


@pytest.mark.parametrize(
    "link", ["[`a.py`](a.py)", "[`losses/a.py`](a.py)", "[the `gae` of it](a.py)", "```\n[`gae`](a.py)\n```", "[`gae`](a.md)"]
)
def test_links_to_whole_files_stay(tmp_path: Path, link: str) -> None:
    (tmp_path / "a.py").write_text(DEFINITIONS)
    assert line_links.revise(tmp_path / "page.md", link) == (link, [], [])
