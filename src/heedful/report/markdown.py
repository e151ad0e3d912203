"""Markdown in which what a model or a labeler wrote stays text: escaped by default, or in a fence that it cannot close."""

from __future__ import annotations

import html
import re
from typing import Any

import jinja2

from heedful.report.numbers import bounds, clip, duration, number, percent, signed

# What Markdown gives a meaning to, wherever it stands; an underscore inside a word has none.
_MARKS = re.compile(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))")
# What begins a heading, a list or a rule.
_BEGINS = re.compile(r"^(\d+)([.)])(?=\s|$)|^(?=[-+](?:\s|$)|--|==|=$|#)")
# What makes a bare address or a name a link on the hub and on GitHub.
_LINKING = re.compile(r":(?=//)|(?<=mailto):|(?<=xmpp):|@|(?<=www)\.", re.IGNORECASE)


class Written(str):
    """Markdown already; everything else that a template puts out is escaped."""

    __slots__ = ()


def plain(value: Any) -> str:
    """One line that Markdown renders as it is."""
    if isinstance(value, Written):
        return value
    text = _MARKS.sub(r"\\\1", " ".join(str(value).split()))
    text = _BEGINS.sub(lambda found: f"{found[1]}\\{found[2]}" if found[1] else "\\", text)
    return _LINKING.sub(lambda found: f"&#{ord(found[0])};", html.escape(text, quote=False))


def fenced(text: Any, language: str = "text") -> Written:
    """A block of code with a fence longer than any row of backticks in it."""
    lines = "\n".join(str(text).splitlines())
    longest = max((len(run) for run in re.findall("`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return Written(f"{fence}{language}\n{lines}\n{fence}")


def render(template: str, **values: Any) -> str:
    """A template of this folder, with `plain` on whatever it puts out."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("heedful.report", "."),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        finalize=plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        **{"number": number, "signed": signed, "percent": percent, "bounds": bounds, "duration": duration},
        **{"fenced": fenced, "clip": clip, "code": Written},
    }
    text = environment.get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
