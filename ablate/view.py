"""The report of a study, served to this machine alone and made anew while its study runs in another process."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ablate.errors import StudyError
from ablate.report import Draw, drawn, opened, page

WATCHED = ("journal.jsonl", "cube.json", "study.resolved.yaml", "cube.zarr")
"""What changes when a run lands or a study ends."""

PAUSE_S = 2.0
"""Seconds between two pages at least."""

REST = 4
"""A page is made anew after so many times as long as the last one took: the study needs the machine more."""

HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Live:
    """The report of a folder as it was last made, and whether it should be made anew."""

    def __init__(self, folder: Path, draw: Draw = drawn) -> None:
        self.folder, self.draw = folder, draw
        self.version, self.problem, self.finished, self.html = "", "", False, b""
        self._lock, self._due = threading.Lock(), 0.0
        self._make()

    def refresh(self) -> None:
        """Make the page anew if the folder changed; at once, unless another thread does or the last one is too new.

        What goes wrong then is said in ``problem``, and the last page stays.
        """
        if self._state() == self.version or time.monotonic() < self._due or not self._lock.acquire(blocking=False):
            return
        try:
            self._make()
        except Exception as error:  # a running study may rewrite or set aside what is being read
            self.problem = f"not up to date: {error}"
            self._due = time.monotonic() + PAUSE_S
        finally:
            self._lock.release()

    def _make(self) -> None:
        begun, version = time.monotonic(), self._state()  # first: what lands meanwhile makes the page old
        source = opened(self.folder)
        self.html = page(source, self.draw, version=version).encode()
        self.finished = all(state.status != "missing" for state in source.states)
        self.version, self.problem = version, ""
        self._due = time.monotonic() + max(PAUSE_S, REST * (time.monotonic() - begun))

    def _state(self) -> str:
        """A name for what the folder holds: when its files changed and how large they are."""
        seen = []
        for path in (self.folder / name for name in WATCHED):
            if path.exists():
                stat = path.stat()
                seen.append((path.name, stat.st_mtime_ns, stat.st_size))
        return sha256(repr(seen).encode()).hexdigest()[:16]


class Server(ThreadingHTTPServer):
    """Serves one page and its version; ``remote`` says whether other machines may ask."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, live: Live, host: str, port: int, *, remote: bool) -> None:
        self.live, self.remote = live, remote
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def trusts(self, host: str) -> bool:
        """Whether a request may name this host. A name of somebody else's that leads here may not (DNS rebinding)."""
        try:
            named = urlsplit(f"//{host}")
            name, port = named.hostname or "", named.port or 80
        except ValueError:
            return False
        if port != self.server_port:
            return False
        return _is_loopback(name) or (self.remote and (_is_address(name) or name == socket.gethostname().lower()))

    def handle_error(self, request: object, client_address: object) -> None:
        """Say what went wrong, unless it is that a reader went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """Knows two paths. Nothing is read from the disk by a name that a request gives."""

    server: Server
    timeout = 30

    def do_GET(self) -> None:
        """The page, its version, or what is wrong with the request."""
        try:
            path = urlsplit(self.path).path
        except ValueError:  # such as http://[
            path = ""
        if not self.server.trusts(self.headers.get("Host", "")):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"this server has another name\n")
        elif path == "/":
            self._send(HTTPStatus.OK, "text/html", self.server.live.html)
        elif path == "/version":
            live = self.server.live
            live.refresh()
            said = {"version": live.version, "finished": live.finished, "problem": live.problem}
            self._send(HTTPStatus.OK, "application/json", json.dumps(said).encode())
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"only the report is here: /\n")

    def do_HEAD(self) -> None:
        """As for GET, without the body."""
        self.do_GET()

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """The name of the server, and not its version."""
        return "ablate"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the person."""


def server(folder: Path, *, host: str = "127.0.0.1", port: int = 0, allow_remote: bool = False) -> Server:
    """A server of the folder's report; port 0 takes a free one.

    Raises:
        StudyError: an interface that other machines reach without ``allow_remote``, a port that is taken, no study.
    """
    remote = not _is_loopback(host)
    if remote and not allow_remote:
        raise StudyError(
            f"--host {host}: other machines could read the answers of this study; add --allow-remote if that is meant "
            "(from elsewhere, `ssh -L 8000:127.0.0.1:PORT` reaches a server that stays closed)"
        )
    live = Live(folder)
    try:
        return Server(live, host, port, remote=remote)
    except OSError as error:
        raise StudyError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}); choose another --port"
        ) from None


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
