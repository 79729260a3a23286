"""A web server on this machine that serves files and, when told, fails in one of many ways."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler", bytes], None]


class Server(ThreadingHTTPServer):
    """Serves `files`, path to bytes; `faults` answer the first requests, one each, instead."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.asked: list[Message] = []  # the headers of each request
        self.tag: str | None = '"first"'
        self.ranges = True
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.headers)
        body = self.server.files.get(self.path.partition("?")[0])
        if self.server.faults:
            self.server.faults.pop(0)(self, body or b"")
        elif body is None:
            self.send_error(404)
        else:
            self.serve(body)

    def serve(self, body: bytes, until: int | None = None) -> None:
        """The file, or the range that was asked for; the connection ends at byte `until` of it."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, self.server.tag)
        start = int(asked[1]) if asked and same and self.server.ranges else 0
        if start >= len(body) > 0:
            self.answer(416, {"Content-Range": f"bytes */{len(body)}"})
            return
        headers = {"Content-Length": str(len(body) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.answer(206 if start else 200, headers, body[start:until])

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        if self.server.tag:
            headers = {"ETag": self.server.tag} | headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def cut(at: int) -> Fault:
    """The connection ends before byte `at` of the file."""
    return lambda handler, body: handler.serve(body, until=at)


def status(code: int, **headers: str) -> Fault:
    """An answer without a file."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.answer(code, {"Content-Length": "0"} | named)


def hang_up(handler: Handler, _: bytes) -> None:
    """No answer at all."""
    handler.connection.shutdown(socket.SHUT_RDWR)
