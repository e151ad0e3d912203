"""A real HTTP server in a thread that answers what it is told to, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a server does with the n-th request: status and body, or a function of the request's JSON.
Reply = tuple[int, str] | Callable[[Any], tuple[int, str]]


@contextmanager
def server(replies: list[Reply]) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives one reply after the other, the last one for ever. Yields its address and the requests."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"body": body, "headers": dict(self.headers), "path": self.path})
            reply = replies[min(len(seen), len(replies)) - 1]
            status, text = reply(body) if callable(reply) else reply
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:
                pass  # the client has given up, as it should

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/score", seen
    finally:
        http.shutdown()
        http.server_close()
