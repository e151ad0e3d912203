"""A real HTTP server with /v1/chat/completions, to be run beside a test: it counts requests and how many are under way.

Run as a process it prints its port, answers each request with a text made of the request, and lets `GET /asked` tell which
contents were asked how often; so that a test can kill its client and see whether anything was asked twice.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# From a request's JSON to a status and a reply's JSON, or text.
Answer = Callable[[dict[str, Any]], tuple[int, Any]]


def completion(text: str | None, finish: str = "stop", usage: tuple[int, int] | None = (7, 3)) -> dict[str, Any]:
    """A reply as OpenAI's. usage: tokens read and written."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    told = {"usage": dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))} if usage else {}
    return {"object": "chat.completion", "choices": [choice]} | told


def echo(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, completion(f"about {body['messages'][-1]['content']}, seed {body['seed']}")


class Chats:
    """What the server saw. most: requests that were under way at once; times: when each began, in seconds."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.now = self.most = 0


@contextmanager
def chat_server(answer: Answer = echo, *, delay_s: float = 0.0) -> Iterator[tuple[str, Chats]]:
    """Yields the address that ends in /v1, and what was seen."""
    seen = Chats()
    http = _server(answer, seen, delay_s)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1", seen
    finally:
        http.shutdown()
        http.server_close()


def _server(answer: Answer, seen: Chats, delay_s: float) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with seen.lock:
                seen.bodies.append(body | {"path": self.path})
                seen.asked[body["messages"][-1]["content"]] += 1
                seen.times.append(time.monotonic())
                seen.now += 1
                seen.most = max(seen.most, seen.now)
            try:
                time.sleep(delay_s)
                status, reply = answer(body)
            finally:
                with seen.lock:
                    seen.now -= 1
            self._send(status, reply)

        def do_GET(self) -> None:
            with seen.lock:
                told = {"asked": dict(seen.asked), "most": seen.most}
            self._send(200, told)

        def _send(self, status: int, reply: Any) -> None:
            text = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:
                self.close_connection = True  # the client has given up, or was killed

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            pass  # a client that was killed

    return Server(("127.0.0.1", 0), Handler)


if __name__ == "__main__":
    lasting = _server(echo, Chats(), float(sys.argv[1]))
    print(lasting.server_address[1], flush=True)
    lasting.serve_forever()
