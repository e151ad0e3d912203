"""What all sections of heedful.toml have in common, and the one that several share."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from heedful.errors import ConfigError

Names = Annotated[tuple[str, ...], Strict(False)]  # TOML's arrays arrive as lists


class Section(BaseModel):
    # strict: neither true nor "3" is taken for a number.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class LoraSection(Section):
    """Low-rank adapters; only these and the heads are trained."""

    rank: int = Field(16, ge=1, description="Rank of the update.")
    alpha: float = Field(32, gt=0, description="The update is scaled by alpha / rank.")
    layers: int = Field(10, ge=0, description="Adapt only this many uppermost layers, which halves the backward pass; 0: all.")
    targets: Names = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Linear layers that get an adapter.",
    )


S = TypeVar("S", bound=Section)


def with_overrides(kind: type[S], overrides: Sequence[str], *, option: str = "--set", **fields: object) -> S:
    """Settings from "key=value" texts, values in TOML's notation. Raises ConfigError naming the key.

    option: what gave the texts, for the message. fields: settings that have options of their own; the texts come over them.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{option} {override}: expected key=value, as in {option} {next(iter(kind.model_fields))}=...")
        try:
            fields[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            raise ConfigError(f"{option} {override}: {text!r} is not a value in TOML's notation") from None
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{option}: unknown key '{name}'; known are {', '.join(kind.model_fields)}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{option} {name}={first['input']!r}: {message}" if name else message) from None
