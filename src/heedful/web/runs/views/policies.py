"""What a page's content may do in the browser, where it is other than what all pages may."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, cast

from csp.decorators import csp_replace, csp_update
from django.http.response import HttpResponseBase

P = ParamSpec("P")
View = Callable[P, HttpResponseBase]

# The style elements that plotly.js puts into a page, by what they hold: one that is empty until its script fills it, and the
# map library's, which no plot here needs: should its text change, the browser's console says that it was blocked.
PLOTLY = {
    "style-src": [
        "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
        "'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='",
    ]
}
# A report is one file with its script in it. In a box it has an origin of its own, and cannot act for whoever reads it here.
REPORT = {
    "default-src": ["'none'"],
    "script-src": ["'unsafe-inline'"],
    "style-src": ["'unsafe-inline'"],
    "img-src": ["data:", "blob:"],
    "sandbox": ["allow-scripts", "allow-modals"],
}


def drawn_by_plotly(view: View[P]) -> View[P]:
    return cast(View[P], csp_update(PLOTLY)(view))


def boxed(view: View[P]) -> View[P]:
    return cast(View[P], csp_replace(REPORT)(view))
