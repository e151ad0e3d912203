"""Instructions from Markdown to HTML."""

from __future__ import annotations

from django.utils.safestring import SafeString
from markdown_it import MarkdownIt

# Raw HTML stays text, and so do links to anything but pages; images would be fetched from elsewhere.
_markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def as_html(text: str) -> SafeString:
    return SafeString(_markdown.render(text))
