"""What a program sends: read once its token was seen, and complained about as a file of records is."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import NinjaAPI
from ninja.errors import HttpError
from ninja.params import models

from heedful.errors import RecordError
from heedful.records import parse_fields, parse_object

MOST_BYTES = 32 * 2**20
WHERE = "the request's body"


class JsonModel(models.BodyModel):
    """ninja's own reads as much as Django takes of a stranger's form (2.5 MB), and says only that it could not be parsed."""

    @classmethod
    def resolve(cls, request: HttpRequest, api: NinjaAPI, path_params: dict[str, Any]) -> Any:
        ((name, field),) = cls.model_fields.items()
        kind: Any = field.annotation
        return cls.model_construct(**{name: parse_fields(_object(request), kind, WHERE)})


class Body(models.Body):  # type: ignore[misc]  # of what pydantic calls final, as ninja's own
    """Marks the parameter that holds the body, a pydantic model."""

    _model = JsonModel


def _object(request: HttpRequest) -> dict[str, Any]:
    raw = request.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise HttpError(
            413,
            f"{WHERE} is larger than {MOST_BYTES // 2**20} MiB; make several projects of it, or use 'heedful label import' on "
            "the server's machine",
        )
    try:
        return parse_object(raw.decode(), WHERE)
    except UnicodeDecodeError as error:
        raise HttpError(400, f"{WHERE} is not UTF-8 ({error.reason})") from None
    except RecordError as error:
        raise HttpError(400, str(error).removesuffix("; mend or drop the line")) from None
