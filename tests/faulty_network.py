"""A network that fails: a loopback HTTP proxy which busies, cuts, drops and refuses by chance, from a seed.

Knows HTTP and a little of how S3 words its errors; forwards everything it does not spoil unchanged.
"""

import contextlib
import http.client
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

FAULTS = (
    "busy",  # 503 SlowDown, not forwarded
    "drop before",  # the connection is reset before the request is forwarded
    "drop after",  # the request is carried out, its answer is lost
    "cut body",  # the answer ends before its announced length
    "short body",  # the answer is shortened, and announced so
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FaultyNetwork:
    """A proxy to `host`:`port`; `chance` (0-1) of a fault in each request, `only` of these kinds.

    With `refusal` (an HTTP status and S3's word for it) every request is answered so. `conditions=False` makes a store
    without conditional puts. `seen` counts requests by method, `done` faults by kind.
    """

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.only: tuple[str, ...] = FAULTS
        self.chance, self.random = 0.0, random.Random(0)
        self.refusal: tuple[int, str] | None = None
        self.conditions = True
        self.seen: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self._turn = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.network = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def fail(self, chance: float, *only: str, seed: int = 0) -> None:
        """From now on spoil this share of requests, in these ways [default: all]."""
        self.chance, self.only, self.random = chance, only or FAULTS, random.Random(seed)

    def stop(self) -> None:
        """Refuse connections and end those that are there, from now on, for good."""
        self.fail(1.0, "drop before")
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def fault(self, method: str) -> str | None:
        """The fault that a request meets, if it meets one."""
        with self._turn:
            self.seen[method] += 1
            if self.random.random() >= self.chance:
                return None
            possible = [kind for kind in self.only if method == "GET" or not kind.endswith("body")]
            if not possible:
                return None
            # In turn, not drawn: threads' order decides who meets which fault, never whether each kind occurs.
            kind = min(possible, key=lambda kind: self.done[kind])
            self.done[kind] += 1
            return kind


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    network: FaultyNetwork

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that break off are what all this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        network = self.server.network
        fault = network.fault(self.command)
        if network.refusal is not None:
            self._answer(_refusal(*network.refusal))
        elif not network.conditions and self.headers.get("If-None-Match"):
            self._answer(_refusal(501, "NotImplemented"))
        elif fault == "busy":
            self._answer(_refusal(503, "SlowDown"))
        elif fault == "drop before":
            self._reset()
        else:
            answer = self._forward(body)
            if fault == "drop after":
                self._reset()
            elif fault == "short body":
                self._answer(Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2]))
            elif fault == "cut body":
                self._answer(answer, send=len(answer.body) // 2)
                self._reset()
            else:
                self._answer(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def _forward(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(*self.server.network.upstream, timeout=30)
        with contextlib.closing(connection):
            # One request a connection: nothing of the other side's keep-alive can be mistaken for a fault of ours.
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "expect")}
            connection.request(self.command, self.path, body, {**headers, "Connection": "close"})
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())

    def _answer(self, answer: Answer, send: int | None = None) -> None:
        self.send_response_only(answer.status)
        length = str(len(answer.body))
        for name, value in answer.headers:
            if self.command == "HEAD" and name.lower() == "content-length":
                length = value  # of the object, which does not follow
            elif name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:send])

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _refusal(status: int, code: str) -> Answer:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made up: {code}</Message></Error>"
    return Answer(status, [("Content-Type", "application/xml")], text.encode())
