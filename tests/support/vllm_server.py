"""A real HTTP server that speaks the part of vLLM's protocol that heedful uses, with a tiny model behind it.

Requests and replies have the shapes of vLLM 0.10.2's routes (load_lora_adapter answers in plain text, a card of an adapter has
its path as `root`, choices carry `token_ids` and `logprobs.token_logprobs`). It is no vLLM.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from heedful.engine.generation import Decoding, sample
from heedful.models.policy import load_language_model

KEYS = {
    "model",
    "prompt",
    "n",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "seed",
    "logprobs",
}
KEYS |= {"return_token_ids", "stop_token_ids"}


@dataclass
class Fake:
    """What the server saw, and how it is to fail: busy: requests for completions that it puts off; deaf: says that it loads an
    adapter and does not; shift: of the log-probs that it tells.
    """

    base: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    busy: int = 0
    deaf: bool = False
    shift: float = 0.0
    root: str = ""
    model: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, body: dict[str, Any]) -> tuple[int, Any]:
        if (
            set(body) != {"lora_name", "lora_path", "load_inplace"}
            or not (Path(body["lora_path"]) / "adapter_config.json").exists()
        ):
            return 400, {"error": {"message": f"no adapter in {body}", "code": 400}}
        with self.lock:
            self.loaded.append(body["lora_path"])
            if not self.deaf or not self.root:
                self.root = body["lora_path"]
                self.model = load_language_model(self.base, dtype=torch.float32, device=torch.device("cpu"))
                self.model.load_adapter("served", Path(self.root))
        return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."

    def models(self) -> tuple[int, Any]:
        card = {"id": "base", "object": "model", "owned_by": "vllm", "root": self.base, "parent": None}
        adapter = {"id": "heedful-policy", "object": "model", "owned_by": "vllm", "root": self.root, "parent": "base"}
        return 200, {"object": "list", "data": [card] + [adapter] * bool(self.root)}

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            self.asked.append(body)
            if self.busy:
                self.busy -= 1
                return 503, {"error": {"message": "overloaded", "code": 503}}
            if set(body) != KEYS or body["model"] != "heedful-policy":
                return 400, {"error": {"message": "unknown keys", "code": 400}}
            decoding = Decoding(body["temperature"], body["top_p"], body["max_tokens"])
            generator = torch.Generator().manual_seed(body["seed"])
            (found,) = sample(
                *(self.model, [body["prompt"]], decoding),
                adapter="served",
                samples_per_prompt=body["n"],
                generator=generator,
                only=[0],
            )
        choices = [
            {
                "index": i,
                "text": "",
                "token_ids": one.ids,
                "logprobs": {"token_logprobs": [value + self.shift for value in one.logprobs]},
                "finish_reason": "length",
            }
            for i, one in reversed(list(enumerate(found)))
        ]
        return 200, {"id": "cmpl-1", "object": "text_completion", "model": "heedful-policy", "choices": choices}


@contextmanager
def vllm_server(base: Path) -> Iterator[tuple[str, Fake]]:
    fake = Fake(str(base))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(*(fake.load(body) if self.path == "/v1/load_lora_adapter" else fake.complete(body)))

        def do_GET(self) -> None:
            self.reply(*fake.models())

        def reply(self, status: int, value: Any) -> None:
            text = (value if isinstance(value, str) else json.dumps(value)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}", fake
    finally:
        http.shutdown()
        http.server_close()
