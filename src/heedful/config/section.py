"""What all sections of heedful.toml have in common, and the one that several share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict

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
