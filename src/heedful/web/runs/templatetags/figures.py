"""Numbers in pages of runs, as in the report."""

from __future__ import annotations

from django import template

from heedful.report import numbers

register = template.Library()
register.filter("number", numbers.number)
register.filter("signed", numbers.signed)
register.filter("duration", numbers.duration)
