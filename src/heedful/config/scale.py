"""Who does the work: one process, or several that share it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from heedful.config.section import Section


class ScaleSection(Section):
    """How many workers share the work, and who starts them."""

    runner: Literal["local", "processes", "ray"] = Field(
        "processes", description="local: this process alone; processes: started here, where there are several; ray: as actors."
    )
    num_trainers: int = Field(1, ge=1, le=1024, description="Workers that compute gradients; they sample and score as well.")
    num_rollout_workers: int = Field(0, ge=0, le=1024, description="More workers, that only sample and score.")
    fsdp: bool = Field(False, description="Each of several workers holds a share of the frozen base, layer by layer (FSDP2).")
    address: str = Field("", description="Of a Ray cluster, such as auto or ray://HOST:10001; empty: one is started here.")
    deadline_s: float = Field(
        600.0, gt=0, description="A worker that others have waited for this long counts as lost, and all are started anew."
    )
    node_wait_s: float = Field(
        300.0, gt=0, description="Under Ray, how long workers wait for a place after a node was lost, or while others use it."
    )

    max_staleness: int = Field(
        0, ge=0, le=8, description="Answers of a step are drawn with the weights of so many steps before; 0: with its own."
    )

    vllm_url: str = Field(
        "", description="Of a vLLM server that draws the answers, such as http://HOST:8000; empty: workers do."
    )
    vllm_model: str = Field("", description="The model's name at that server; empty: model.source.")
    vllm_folder: str = Field("", description="Where each step's adapter is written for it; empty: in the run directory.")
    vllm_token_env: str = Field("", description="Environment variable that holds the server's token.")

    @property
    def num_workers(self) -> int:
        return self.num_trainers + self.num_rollout_workers

    @model_validator(mode="after")
    def _meant_together(self) -> ScaleSection:
        if self.runner == "local" and self.num_workers > 1:
            raise ValueError(f"runner = 'local' is one process and cannot hold {self.num_workers} workers; use 'processes'")
        if self.address and self.runner != "ray":
            raise ValueError(f"address = {self.address!r} is that of a Ray cluster, and runner = {self.runner!r}; use 'ray'")
        if self.vllm_url and not self.vllm_url.startswith(("http://", "https://")):
            raise ValueError(f"vllm_url = {self.vllm_url!r} is no address; it begins with http:// or https://")
        if not self.vllm_url and (self.vllm_model or self.vllm_folder or self.vllm_token_env):
            raise ValueError("vllm_model, vllm_folder and vllm_token_env say something of a server; name it by vllm_url")
        return self
