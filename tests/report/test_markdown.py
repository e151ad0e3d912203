"""Markdown that the report writes: whatever a model said stays what it said, for any reader of Markdown."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_run import HOSTILE, labeler, row, summary, write_lines

from heedful.report.build import build
from heedful.report.markdown import fenced, plain
from heedful.store import write_json

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ATTACK = (
    "```\n</text>![x](http://a.example/i.png) [y](javascript:alert(1)) <script>alert(1)</script> | a | b |\n"
    "~~~~\n````\n# Title\n- item\n1. one\n\n---\n<img src=x onerror=alert(1)> https://b.example www.c.example\n"
    "me@d.example $x$ **bold** _it_ &lt; \\"
)
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
MARKS = st.text(st.sampled_from(list("\\`*_[]()#+-=|~$<>&!.:/ 1aw@")), min_size=1, max_size=20).filter(str.strip)


class Shown(HTMLParser):
    """Elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def shown(markdown: str) -> Shown:
    return Shown(READER.render(markdown))


@given(LINES | MARKS)
@example(ATTACK)
@example("- a")
@example("-")
@example("1) a")
@example("===")
@example("__init__")
@example("a_b_c")
@example("&amp; &#60;")
def test_a_line_is_shown_as_it_is(text: str) -> None:
    wanted = " ".join(text.split())
    alone = shown(plain(text))
    assert alone.tags == ["p"]
    assert "".join(alone.words).strip() == wanted
    below = shown(f"before\n{plain(text)}")
    assert below.tags == ["p"]
    cell = shown(f"| a | b |\n|---|---|\n| {plain(text)} | x |")
    assert set(cell.tags) == {"table", "thead", "tr", "th", "tbody", "td"}
    assert len([tag for tag in cell.tags if tag == "td"]) == 2


@pytest.mark.parametrize("address", ["https://a.example", "HTTP://a.example", "www.a.example", "me@a.example", "mailto:me"])
def test_a_bare_address_is_no_link(address: str) -> None:
    """GitHub and the hub look for these in the source, before entities are read."""
    assert not re.search(r"://|www\.|@|mailto:", plain(address), re.IGNORECASE)
    assert html.unescape(plain(address)) == address


@given(LINES | MARKS)
@example(ATTACK)
@example("`" * 9)
def test_a_fence_is_not_left(text: str) -> None:
    found = shown(f"{fenced(text)}\n\nafter")
    assert found.tags == ["pre", "code", "p"]
    assert "".join(found.words).strip("\n").endswith("after")


def test_no_page_lets_a_model_in(tmp_path: Path) -> None:
    bad = ATTACK + HOSTILE
    changed = summary() | {"model": bad, "command": bad, "labelers": [labeler(bad, suspect=True, verdict=bad)]}
    changed["by_tag"] = {bad: changed["compare"]}
    changed["phrases"] = [{"phrase": bad, "before": 0.0, "after": 0.5}]
    changed["align"] |= {"hacking": {"level": "warn", "signs": [{"name": "x", "level": "warn", "said": bad}], "curve": None}}
    (tmp_path / "summary.json").write_text(json.dumps(changed))
    for side in ("before", "after"):
        write_lines(
            tmp_path / "evaluate" / f"{side}.jsonl", [row("p1", 1, 0.5 if side == "before" else 0.1, bad) | {"prompt": bad}]
        )
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "stage": "ppo", "hacking_level": 1.0, "heldout_reward": 0.5}])
    write_lines(
        tmp_path / "hacking.jsonl", [{"steps": 1, "stage": "ppo", "signs": [{"name": bad, "level": "warn", "said": bad}]}]
    )
    write_json(tmp_path / "ppo" / "policy" / "adapter_config.json", {})
    build(tmp_path)
    page = shown((tmp_path / "report.md").read_text(encoding="utf-8"))
    assert not {"a", "img", "script"} & set(page.tags)
    assert "".join(page.words).count("alert(1)") > 10, "it is all there, as text"
    card = shown((tmp_path / "ppo" / "policy" / "README.md").read_text(encoding="utf-8").split("\n---\n", 1)[1])
    assert card.tags.count("a") == 1, "heedful's own"
    assert not {"img", "script"} & set(card.tags)
