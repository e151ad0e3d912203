"""Which model gives feedback: a local one, or one behind an OpenAI-compatible address."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from heedful.config.section import Section


class FeedbackSection(Section):
    """A model that writes critiques and revisions, or says which of two answers is better."""

    source: str = Field("smollm2-135m", min_length=1, description="A folder, an alias, a hub id, or https://.../v1.")
    model: str = Field("", description="Of an address: the model's name there.")
    token_env: str = Field("", description="Of an address: environment variable that holds its token.")
    timeout_s: float = Field(60.0, gt=0, description="Of an address: seconds that one request may take, its reply included.")
    max_retries: int = Field(5, ge=0, description="Of an address: times that a failed request is sent again.")
    backoff_s: float = Field(1.0, ge=0, description="Of an address: pause before the first retry; it doubles each time.")
    in_flight: int = Field(16, ge=1, le=256, description="Of an address: requests under way at a time.")
    requests_a_minute: float = Field(0.0, ge=0, description="Of an address: most requests begun in a minute; 0: no limit.")
    price_prompt: float = Field(0.0, ge=0, description="Price of a million tokens read.")
    price_completion: float = Field(0.0, ge=0, description="Price of a million tokens written.")
    batch_rows: int = Field(32, ge=1, description="Of a local model: answers written side by side.")

    @property
    def remote(self) -> bool:
        """Whether it is behind an address."""
        return "://" in self.source

    @model_validator(mode="after")
    def _what_belongs_to_an_address(self) -> Self:
        if self.remote and not self.model:
            raise ValueError(f"{self.source} is an address: say with 'model' which of its models is meant")
        if not self.remote and (self.model or self.token_env):
            raise ValueError("'model' and 'token_env' belong to an address, https://.../v1")
        return self
