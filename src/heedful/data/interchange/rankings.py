"""What labelers answered in Argilla: their responses in both shapes, and the ranking in one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from heedful.data.interchange.foreign import Fields, as_list, as_name, as_object, as_text, unexpected
from heedful.data.interchange.sets import Asked, Report
from heedful.errors import RecordError

RANKING, FLAGGED, NOTE = "ranking", "flagged", "note"  # the questions as we write them
_UNUSED = ("draft", "discarded")


class Response(NamedTuple):
    """One user's answers to the questions of a record. values: by question. when: as the file says it."""

    where: str
    user: str
    status: str | None
    values: Fields
    when: Any

    @property
    def note(self) -> str | None:
        value = self.values.get(NOTE)
        return None if value is None else as_text(value, NOTE, self.where)


class Ranked(NamedTuple):
    """fields: in the order of the file, each once. ranks: None for a list of names alone. flagged: fields as well."""

    fields: list[str]
    ranks: dict[str, int] | None
    flagged: list[str]


def responses(value: Any, where: str) -> list[Response]:
    """A list with an object for each user (server, 1.x), or an object with a list for each question (2.x)."""
    if value is None:
        return []
    if isinstance(value, list):
        return [_of_user(one, f"{where}, response {number}") for number, one in enumerate(value, start=1)]
    return _by_user(as_object(value, "responses", where), where)


def _of_user(value: Any, where: str) -> Response:
    fields = as_object(value, "response", where)
    values = as_object(fields.get("values") or {}, "values", where)
    answers = {name: as_object(answer, f"values.{name}", where).get("value") for name, answer in values.items()}
    when = fields.get("updated_at") or fields.get("inserted_at")
    return Response(where, _user(fields.get("user_id"), where), _status(fields.get("status"), where), answers, when)


def _by_user(value: Fields, where: str) -> list[Response]:
    found: dict[str, Response] = {}
    for question, answers in value.items():
        for number, answer in enumerate(as_list(answers, f"responses.{question}", where), start=1):
            place = f"{where}, response {number} to {question!r}"
            fields = as_object(answer, "response", place)
            user = _user(fields.get("user_id"), place)
            status = _status(fields.get("status"), place)
            known = found.setdefault(user, Response(f"{where}, responses of {user}", user, status, {}, None))
            if question in known.values:
                raise RecordError(place, f"user {user!r} answered it twice; keep one of the two")
            if known.status != status:
                raise RecordError(place, f"field 'status': {status!r} here and {known.status!r} in another answer; mend it")
            known.values[question] = fields.get("value")
    return list(found.values())


def _user(value: Any, where: str) -> str:
    if value == "None":  # as Argilla 2 writes a user that it does not know
        value = None
    return as_name(value, "user_id", where)


def _status(value: Any, where: str) -> str | None:
    if value not in (None, "submitted", *_UNUSED):
        raise unexpected(value, "status", "submitted, draft or discarded", where)
    return None if value is None else str(value)


def ranked(response: Response, names: dict[str, str], asked: Asked, report: Report) -> Ranked | None:
    """The ranking in a response; None, with its reason counted, where there is none to be counted.

    names: what a ranking may call an answer, and its field. Raises RecordError.
    """
    where = response.where
    if response.status in _UNUSED:
        report.leave_out(f"responses with status {response.status}")
        return None
    question = _question(response, asked)
    if question is None:
        report.leave_out("responses without a ranking (a question of another name: --question)")
        return None
    if response.status is None:
        report.doubt("responses without a status, taken as submitted: Argilla 2's to_json gives none, even of drafts")
    items = as_list(response.values[question], question, where)
    ranks: dict[str, int] = {}
    plain = bool(items) and all(isinstance(item, str) for item in items)
    for place, item in enumerate(items, start=1):
        fields = {"value": item, "rank": place} if plain else as_object(item, question, where)
        rank = fields.get("rank")
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise unexpected(rank, f"{question}.rank", "a whole number, 1 or more", where)
        field = _field(fields.get("value"), question, names, where)
        if field in ranks:
            raise RecordError(where, f"{question!r} ranks {field!r} twice; keep one of the two")
        ranks[field] = rank
    flagged = response.values.get(FLAGGED)
    flags = [_field(name, FLAGGED, names, where) for name in as_list([] if flagged is None else flagged, FLAGGED, where)]
    return Ranked(list(ranks), None if plain else ranks, list(dict.fromkeys(flags)))


def _question(response: Response, asked: Asked) -> str | None:
    answered = [name for name, value in response.values.items() if value is not None]
    if asked.question is not None or RANKING in answered:
        name = asked.question or RANKING
        return name if name in answered else None
    found = [name for name in answered if _is_ranking(response.values[name])]
    if len(found) > 1:
        raise RecordError(response.where, f"holds several rankings ({', '.join(found)}); choose one with --question")
    return found[0] if found else None


def _is_ranking(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "rank" in one for one in value)


def _field(name: Any, question: str, names: dict[str, str], where: str) -> str:
    field = names.get(as_text(name, f"{question}.value", where))
    if field is None:
        known = ", ".join(sorted(set(names.values()))) or "none; rename them to response-1, response-2 and so on"
        raise RecordError(where, f"{question!r} names {name!r}, which is no answer; the fields that hold answers are: {known}")
    return field


def orders_differ(orders: Iterable[list[str]]) -> bool:
    """Whether two of the orders disagree about a pair; where none do, they may all be the order of the question's options."""
    before: set[tuple[str, str]] = set()
    for order in orders:
        for place, first in enumerate(order):
            for second in order[place + 1 :]:
                if (second, first) in before:
                    return True
                before.add((first, second))
    return False
