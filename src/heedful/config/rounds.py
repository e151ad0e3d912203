"""Section of a round: which prompts are judged, and who judges."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from heedful.config.section import Section


class RoundSection(Section):
    """A round of labelling; also a run of one round has one."""

    num_prompts: int = Field(
        0, ge=0, description="Training prompts whose completions are judged in a round, each round the next ones; 0: all."
    )
    judges: Literal["simulated", "people", "ai"] = Field(
        "simulated", description="Who judges: simulated labelers, people on a labelling server, or the judge of [prefer]."
    )
    server: str = Field("", description="Of people: the labelling server's address; HEEDFUL_LABEL_TOKEN holds the token.")
    overlap: int = Field(1, ge=1, le=50, description="Of people: how many judge each set of completions.")
    quota: int = Field(0, ge=0, description="Of people: finished sets with which the round goes on; 0: all.")
    poll_s: float = Field(10.0, gt=0, description="Of people: seconds between two looks at how far they are.")

    @model_validator(mode="after")
    def _people_have_a_server(self) -> Self:
        if self.judges == "people" and not self.server:
            raise ValueError("judges = 'people' needs round.server, the address that 'heedful serve' prints")
        if self.server and self.judges != "people":
            raise ValueError("server belongs to judges = 'people'")
        return self
