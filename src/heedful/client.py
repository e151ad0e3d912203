"""The labelling server from Python, over its API: projects, invitations, judgements. docs/api.md has an example."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from heedful import exchange
from heedful.errors import ConfigError, HeedfulError
from heedful.records import Completion, Judgement, Prompt, parse_line, to_line

T = TypeVar("T")
Parameters = Mapping[str, str | int]

TOKEN = "HEEDFUL_LABEL_TOKEN"
NEXT_STEPS = {
    401: f"hand over another token, or set {TOKEN}",
    403: "use the token of somebody who may",
    404: "projects() lists what there is",
    409: "choose another name, or go on with what is there",
    413: "send less at once",
}


class ServerError(HeedfulError):
    """The labelling server did not do what it was asked. status: of its answer, None where none came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class LabelServer:
    """A labelling server, by its address and a token ('heedful label users token'); without one, that in HEEDFUL_LABEL_TOKEN.

    What only reads is tried again where there was no answer, after backoff_s, twice that, and so on; what writes is not, for it
    may have been done. plain_http: also where others on the way can read the token. sleep: for tests. Raises ConfigError.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        max_retries: int = 3,
        backoff_s: float = 1.0,
        plain_http: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        local = _is_local(url, plain_http)
        self.url = url.rstrip("/")
        self.max_retries = max_retries
        self.backoff_s = backoff_s
        self.sleep = sleep
        # No proxy to this machine: it would be told the token.
        headers = {"Authorization": f"Bearer {_checked(token or os.environ.get(TOKEN, ''))}"}
        self.client = httpx2.Client(timeout=timeout_s, headers=headers, follow_redirects=False, trust_env=not local)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    def projects(self) -> list[exchange.Project]:
        """Those that the token's owner labels in or manages; all, for an admin."""
        return self._read(self._get("projects"), list[exchange.Project])

    def create_project(
        self,
        name: str,
        prompts: Iterable[Prompt],
        completions: Iterable[Completion],
        *,
        criterion: str = "helpfulness",
        mode: exchange.Mode = "rank",
        overlap: int = 3,
        adaptive: bool = False,
        against: Iterable[Completion] | None = None,
        gold: Iterable[Judgement] = (),
    ) -> exchange.ProjectDetail:
        """A project of prompts and their completions; its slug names it from then on. against, gold: see `NewProject`."""
        body: dict[str, Any] = {
            "name": name,
            "prompts": _fields(prompts),
            "completions": _fields(completions),
            "criterion": criterion,
            "mode": mode,
            "overlap": overlap,
            "adaptive": adaptive,
            "gold": _fields(gold),
        }
        if against is not None:
            body["against"] = _fields(against)
        return self._read(self._post("projects", body), exchange.ProjectDetail)

    def project(self, slug: str) -> exchange.ProjectDetail:
        """With how far it is."""
        return self._read(self._get(_path(slug)), exchange.ProjectDetail)

    def pause(self, slug: str, paused: bool = True) -> exchange.ProjectDetail:
        """Stops handing sets out; with False, goes on."""
        return self._read(self._post(_path(slug, "pause"), {"paused": paused}), exchange.ProjectDetail)

    def invite(self, slug: str) -> str:
        """A link by which one person joins as a labeler."""
        return self._read(self._post(_path(slug, "invitations")), exchange.Invitation).link

    def judgements(self, slug: str, after: str | None = None) -> Iterator[Judgement]:
        """All that count, oldest first, page by page. after: the id of one, to get only those that follow it."""
        path = _path(slug, "judgements")
        while True:
            given: dict[str, str | int] = {"limit": exchange.MOST_JUDGEMENTS}
            response = self._get(path, given | ({"after": after} if after else {}))
            lines = response.content.decode("utf-8", errors="replace").split("\n")[:-1]
            for number, line in enumerate(lines, start=1):
                judgement = parse_line(line, Judgement, f"{response.url}:{number}")
                yield judgement
                after = judgement.id
            if len(lines) < exchange.MOST_JUDGEMENTS:
                return

    def sets(self, slug: str) -> Iterator[exchange.LabelledSet]:
        """Prompts with their completions, page by page."""
        after: int | None = 0
        while after is not None:
            given = {"limit": exchange.MOST_SETS, "after": after}
            page = self._read(self._get(_path(slug, "sets"), given), exchange.SetsPage)
            yield from page.sets
            after = page.after

    def quality(self, slug: str) -> exchange.Quality | None:
        """Agreement and the quality of each labeler; None without judgements."""
        kind: Any = exchange.Quality | None
        found: exchange.Quality | None = self._read(self._get(_path(slug, "quality")), kind)
        return found

    def labelers(self, slug: str) -> list[exchange.Labeler]:
        """Who labels in the project, and how much each has judged."""
        return self._read(self._get(_path(slug, "labelers")), list[exchange.Labeler])

    def count_in(self, slug: str, labeler: str, counted: bool = True) -> exchange.Labeler:
        """Takes a labeler's judgements into account; with False, leaves them out. They stay stored."""
        path = _path(slug, "labelers", labeler, "counted")
        return self._read(self._post(path, {"counted": counted}), exchange.Labeler)

    def _get(self, path: str, parameters: Parameters | None = None) -> httpx2.Response:
        for attempt in range(self.max_retries):
            try:
                return self._send("GET", path, parameters=parameters)
            except ServerError as error:
                if error.status is not None:
                    raise
            self.sleep(self.backoff_s * 2**attempt)
        return self._send("GET", path, parameters=parameters)

    def _post(self, path: str, body: Mapping[str, Any] | None = None) -> httpx2.Response:
        return self._send("POST", path, content=json.dumps(body or {}, ensure_ascii=False).encode())

    def _send(
        self, method: str, path: str, *, parameters: Parameters | None = None, content: bytes | None = None
    ) -> httpx2.Response:
        where = f"{method} {self.url}/api/{path}"
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            response = self.client.request(
                method, f"{self.url}/api/{path}", params=parameters, content=content, headers=headers
            )
        except httpx2.HTTPError as error:
            advice = "check that the server runs" if method == "GET" else "it may have been done: look before you do it again"
            raise ServerError(f"{where}: no answer ({type(error).__name__}: {error}); {advice}") from None
        if not response.is_success:
            advice = NEXT_STEPS.get(response.status_code, "")
            if response.status_code >= 500:
                advice = "see what the server has written on its own terminal"
            said = f"{where}: the server answered {response.status_code}: {_sentence(response)}"
            raise ServerError(f"{said}; {advice}" if advice else said, response.status_code)
        return response

    def _read(self, response: httpx2.Response, kind: type[T]) -> T:
        try:
            return TypeAdapter(kind).validate_json(response.content)
        except ValidationError as error:
            raise ServerError(
                f"{response.request.method} {response.url}: the answer is not what a labelling server gives "
                f"({error.errors()[0]['msg']}); check the address, and that server and client are of one version",
                response.status_code,
            ) from None


def _is_local(url: str, plain_http: bool) -> bool:
    """Whether it is on this machine. Raises ConfigError where it is no address, or the token would travel in the clear."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.userinfo:
        raise ConfigError("leave user and password out of the labelling server's address; a token says who you are")
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise ConfigError(f"{url!r} is no labelling server's address; it looks like https://labels.example.org")
    try:
        local = ip_address(parsed.host).is_loopback
    except ValueError:
        local = parsed.host == "localhost"
    if parsed.scheme == "http" and not local and not plain_http:
        raise ConfigError(
            f"{url}: over plain http others on the way can read the token; use https, or say plain_http=True where nobody can"
        )
    return local


def _checked(token: str) -> str:
    """Raises ConfigError, without showing the token."""
    if not token:
        raise ConfigError(f"there is no token: set {TOKEN}; 'heedful label users token' on the server's machine makes one")
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigError("the token holds a character that no token has, as a space or a line's end; copy it anew")
    return token


def _path(slug: str, *parts: str) -> str:
    return "/".join(["projects", *(quote(part, safe="") for part in (slug, *parts))])


def _fields(records: Iterable[BaseModel]) -> Sequence[dict[str, Any]]:
    return [json.loads(to_line(record)) for record in records]


def _sentence(response: httpx2.Response) -> str:
    """What the server says of it; of another server's page, how it begins."""
    try:
        detail = json.loads(response.content)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    if isinstance(detail, str):
        return detail
    if response.is_redirect:
        return f"go to {response.headers.get('location', '')[:200]!r}; is that the address?"
    return repr(response.text[:200])
