"""A real OpenAI-compatible server on loopback that does what a test tells it to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """What the server answers: status, headers, body, and how long it takes."""

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    body: bytes = b"{}"
    delay_s: float = 0.0


def says(text: Any, tokens: int | None = 10) -> Reply:
    """A completion with this text."""
    usage = {} if tokens is None else {"usage": {"total_tokens": tokens}}
    choices = [{"message": {"role": "assistant", "content": text}}]
    return Reply(body=json.dumps({"choices": choices, **usage}).encode())


def fails(status: int, message: str = "", **headers: str) -> Reply:
    """An error as such endpoints report it; ``_`` in a header's name is ``-``."""
    body = json.dumps({"error": {"message": message}}).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


class Endpoint:
    """``script`` makes the reply of the question and of how often it was asked before."""

    def __init__(self, script: Callable[[str, int], Reply]) -> None:
        self.script = script
        self.asked: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.authorization: list[str | None] = []
        self.under_way = self.most_under_way = 0
        self.lock = Lock()
        self.base_url = ""

    def answer(self, request: dict[str, Any], authorization: str | None) -> Reply:
        question = request["messages"][0]["content"]
        with self.lock:
            before = self.asked.count(question)
            self.asked.append(question)
            self.requests.append(request)
            self.authorization.append(authorization)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        reply = self.script(question, before)
        time.sleep(reply.delay_s)
        with self.lock:
            self.under_way -= 1
        return reply


@contextmanager
def served(script: Callable[[str, int], Reply]) -> Iterator[Endpoint]:
    """A server for as long as the block runs."""
    endpoint = Endpoint(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/chat/completions"
            reply = endpoint.answer(json.loads(body), self.headers.get("Authorization"))
            try:
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # whoever asked did not wait

        def log_message(self, *_: Any) -> None:
            """Nothing: the tests read what was asked."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    endpoint.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
