"""A proxy that sits before a real store and breaks what passes through it, by plan.

`proxy.chances[Fault.FLIP] = 0.1` breaks a tenth of the GET requests, and `proxy.once(Fault.STALL,
"shard.00001.mds", byte=0)` the next one that asks for that byte. Which request is hit depends on the seed,
the request and how often it was made before, not on the order in which threads make them.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import socketserver
import struct
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.servers.store_server import StoreServer


class Fault(StrEnum):
    """What may happen to an answer."""

    SLOW_DOWN = "503 SlowDown instead of the answer"
    INTERNAL_ERROR = "500 instead of the answer"
    RESET = "the connection is reset before the headers"
    RESET_MIDWAY = "the connection is reset half-way through the body"
    TRUNCATE = "the body ends half-way, though Content-Length promised all of it"
    SHORT = "half of the body, and a Content-Length to match"
    FLIP = "one flipped bit in the body"
    STALL = "nothing for `stall_seconds`, then the answer"
    STALL_MIDWAY = "half of the body, nothing for `stall_seconds`, then the rest"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request that passed through."""

    method: str
    path: str
    """Decoded, without the query."""
    start: int | None
    """First byte of the range asked for, if any."""
    end: int | None
    """Byte after the last one."""


class FaultProxy(socketserver.ThreadingTCPServer):
    """Forwards to `upstream` while it is entered as a context; `store` is the way through it."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, upstream: StoreServer, *, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.store = upstream.behind(f"http://127.0.0.1:{self.server_address[1]}")
        self.seed = seed
        self.methods = {"GET"}
        """Only requests of these methods are broken."""
        self.chances: dict[Fault, float] = {}
        """Probability of each fault; together at most 1."""
        self.stall_seconds = 30.0
        self.bytes_per_second: float | None = None
        """Speed of the body of each answer; None: as fast as it goes."""
        self.requests: list[Request] = []
        self.injected: Counter[Fault] = Counter()
        self.closing = threading.Event()
        self._planned: list[tuple[Fault, str, int | None]] = []
        self._seen: Counter[Request] = Counter()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def once(self, fault: Fault, name: str = "", *, byte: int | None = None) -> None:
        """Break the next request for an object whose name ends in `name` and whose range has `byte`."""
        with self._lock:
            self._planned.append((fault, name, byte))

    def clear(self) -> None:
        """No faults, no limits, empty books."""
        with self._lock:
            self.chances, self._planned, self.bytes_per_second = {}, [], None
            self.requests, self.injected, self._seen = [], Counter(), Counter()

    def fault_for(self, request: Request) -> Fault | None:
        """Write `request` into the books; the fault that it gets."""
        with self._lock:
            self.requests.append(request)
            self._seen[request] += 1
            fault = self._choose(request)
            if fault is not None:
                self.injected[fault] += 1
            return fault

    def _choose(self, request: Request) -> Fault | None:
        if request.method not in self.methods:
            return None
        for plan in self._planned:
            fault, name, byte = plan
            start, end = request.start or 0, request.end
            hit = byte is None or (start <= byte and (end is None or byte < end))
            if hit and request.path.endswith(name):
                self._planned.remove(plan)
                return fault
        drawn = random.Random(f"{self.seed} {request} {self._seen[request]}").random()
        for fault, chance in self.chances.items():
            if drawn < chance:
                return fault
            drawn -= chance
        return None

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # the other side was faster
                    connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        # Close without the usual goodbye: a connection that lingers for 0 seconds is then reset.
        with self._lock:
            self._open.discard(request)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, as it should when an answer is broken, is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection(urlsplit(self.server.upstream.endpoint).netloc)

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault_for(self._request())
        if fault in (Fault.SLOW_DOWN, Fault.INTERNAL_ERROR):
            return self._refuse(fault)
        if fault is Fault.RESET:
            return self._reset()
        if fault is Fault.STALL:
            self.server.closing.wait(self.server.stall_seconds)
        answer, content = self._forward(body)
        return self._reply(answer, content, fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _request(self) -> Request:
        # Azure's clients name their range in a header of their own.
        header = self.headers.get("Range") or self.headers.get("x-ms-range") or ""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", header)
        start = int(wanted[1]) if wanted else None
        end = int(wanted[2]) + 1 if wanted and wanted[2] else None
        path = unquote(urlsplit(self.path).path)
        return Request(method=self.command, path=path, start=start, end=end)

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """Hand the request on as it came, signatures and all."""
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            self.upstream.putheader(name, value)
        self.upstream.endheaders(body or None)
        answer = self.upstream.getresponse()
        return answer, answer.read()

    def _reply(self, answer: http.client.HTTPResponse, content: bytes, fault: Fault | None) -> None:
        if fault is Fault.FLIP and content:
            bit = random.Random(f"{self.server.seed} {self.path}").randrange(8 * len(content))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            content = bytes(flipped)
        if fault is Fault.SHORT:
            content = content[: len(content) // 2]
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = len(content)
        if self.command == "HEAD":
            length = int(answer.getheader("Content-Length") or 0)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        half = len(content) // 2
        if fault is Fault.TRUNCATE:
            self._send(content[:half])
            self.close_connection = True
        elif fault is Fault.RESET_MIDWAY:
            self._send(content[:half])
            self._reset()
        elif fault is Fault.STALL_MIDWAY:
            self._send(content[:half])
            self.server.closing.wait(self.server.stall_seconds)
            self._send(content[half:])
        else:
            self._send(content)

    def _send(self, content: bytes) -> None:
        speed = self.server.bytes_per_second
        step = len(content) if speed is None else max(1, int(speed / 20))
        for at in range(0, len(content), step or 1):
            part = content[at : at + step]
            self.wfile.write(part)
            self.wfile.flush()
            if speed is not None:
                self.server.closing.wait(len(part) / speed)
        self.wfile.flush()

    def _refuse(self, fault: Fault) -> None:
        code = "SlowDown" if fault is Fault.SLOW_DOWN else "InternalError"
        content = f"<Error><Code>{code}</Code><Message>by plan</Message></Error>".encode()
        self.send_response(503 if fault is Fault.SLOW_DOWN else 500)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self._send(b"" if self.command == "HEAD" else content)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
