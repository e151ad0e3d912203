"""Answers from a vLLM server, which gets each step's adapter before it draws: POST /v1/load_lora_adapter, POST /v1/completions.

The server is started apart, with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; docs/operations.md has the command. What it answers is
not taken on trust: the adapter's path, which names the step and a digest, is asked for before and after drawing, and the
trainers read the answers again.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from heedful.endpoint import Endpoint, EndpointError, PassingError
from heedful.engine.generation import Decoding, Response
from heedful.errors import TrainingError
from heedful.models.policy import LanguageModel
from heedful.store import new_folder

T = TypeVar("T")

NAME = "heedful-policy"  # of the adapter at the server; each version takes the place of the one before
PARALLEL = 64  # requests under way: the server batches them
KEPT = 10  # adapters that stay in the folder, for a server that is slow to read them


class VllmServer:
    """url: without /v1. base: the model's name at the server. folder: where adapters are written, which the server can read.

    timeout_s, max_retries, backoff_s, token, sleep: of each request, as of an `Endpoint`.
    """

    def __init__(
        self,
        url: str,
        base: str,
        folder: Path,
        *,
        timeout_s: float,
        max_retries: int = 5,
        backoff_s: float = 1.0,
        token: str = "",
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.url, self.base, self.folder = url.rstrip("/").removesuffix("/v1"), base, folder
        how: dict[str, Any] = {"timeout_s": timeout_s, "max_retries": max_retries, "backoff_s": backoff_s, "token": token}
        how["sleep"] = sleep
        self.loading = Endpoint(f"{self.url}/v1/load_lora_adapter", plain=True, **how)
        self.models = Endpoint(f"{self.url}/v1/models", **how)
        self.completions = Endpoint(f"{self.url}/v1/completions", **how)

    def give_up(self) -> None:
        """Nothing is asked any more; who waits between two tries stops waiting."""
        for endpoint in (self.loading, self.models, self.completions):
            endpoint.stop.set()

    def write(self, model: LanguageModel, adapter: str, version: int, digest: str) -> Path:
        """An adapter of the model as a folder of its own, named by the step and the digest; older ones are cleared away."""
        folder = self.folder.absolute() / f"{version:06d}-{digest[:12]}"
        if not folder.exists():
            with new_folder(folder) as fresh:
                model.save_adapter(adapter, fresh)
        os.utime(folder)  # by age and not by step: a run that goes back, or begins anew, has low steps beside old high ones
        found = [one for one in self.folder.absolute().iterdir() if one.is_dir() and one.name[:6].isdigit() and one != folder]
        for old in sorted(found, key=lambda one: one.stat().st_mtime)[: -(KEPT - 1)]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def sample(
        self,
        adapter: Path,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        *,
        samples_per_prompt: int,
        seed: int,
        stop_ids: Sequence[int],
    ) -> list[list[Response]]:
        """Answers to each prompt with that folder's adapter. Raises TrainingError when the server fails or holds another."""
        self._load(adapter)
        self._require_loaded(adapter)

        def ask(i: int) -> list[Response]:
            body = {
                "model": NAME,
                "prompt": list(prompts[i]),
                "n": samples_per_prompt,
                "max_tokens": decoding.max_new_tokens,
                "temperature": decoding.temperature,
                # Said, because the server's defaults are those of the model's generation_config.json.
                "top_p": decoding.top_p,
                "top_k": -1,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "seed": (seed * 1_000_003 + i) % 2**31,
                "logprobs": 0,
                "return_token_ids": True,
                "stop_token_ids": list(stop_ids),
            }
            return self._failing(self.completions, body, lambda reply: _responses(reply, samples_per_prompt))

        with ThreadPoolExecutor(min(PARALLEL, max(1, len(prompts)))) as pool:
            found = list(pool.map(ask, range(len(prompts))))
        self._require_loaded(adapter)  # nobody has put another in its place meanwhile
        return found

    def _load(self, adapter: Path) -> None:
        body = {"lora_name": NAME, "lora_path": str(adapter), "load_inplace": True}
        self._failing(self.loading, body, lambda text: text)

    def _require_loaded(self, adapter: Path) -> None:
        def root(reply: Any) -> str:
            try:
                cards = {card["id"]: card for card in reply["data"]}
            except (TypeError, KeyError):
                raise PassingError(f"{self.models.url}: the reply lists no models") from None
            if self.base not in cards:
                raise EndpointError(f"{self.url} serves {', '.join(sorted(cards))} and no {self.base!r}; set scale.vllm_model")
            return str(cards[NAME].get("root", "")) if NAME in cards else ""

        held = self._failing(self.models, None, root)
        if held != str(adapter):
            raise TrainingError(
                f"{self.url} holds the adapter {held or 'of no step'!r} under the name {NAME}, and this step's is {adapter}; "
                "nothing was learned from its answers. Is it started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and used by "
                "this run alone? Then run the same command again"
            )

    def _failing(self, endpoint: Endpoint, body: Any, read: Callable[[Any], T]) -> T:
        try:
            return endpoint.post(body, read)
        except EndpointError as error:
            raise TrainingError(
                f"{error}. Nothing that was learned is lost: mend the vLLM server, then run the same command again; it goes on "
                "from the last checkpoint"
            ) from None


def _responses(reply: Any, count: int) -> list[Response]:
    """Tokens and log-probs of the answers in a reply; raises PassingError for one that lacks any."""
    try:
        choices = sorted(reply["choices"], key=lambda choice: choice["index"])
        found = [Response(list(choice["token_ids"]), list(choice["logprobs"]["token_logprobs"])) for choice in choices]
    except (TypeError, KeyError):
        raise PassingError("the reply has no tokens with log-probs; vLLM 0.10.2 is the first that returns token_ids") from None
    for one in found:
        sound = all(isinstance(token, int) for token in one.ids) and all(
            isinstance(value, int | float) and math.isfinite(value) for value in one.logprobs
        )
        if len(one.ids) != len(one.logprobs) or not sound:
            raise PassingError(f"the reply has {len(one.ids)} tokens with {len(one.logprobs)} log-probs, or no numbers")
    if len(found) != count:
        raise PassingError(f"the reply has {len(found)} answers, and {count} were asked for")
    return found
