"""A web server of one folder that knows ranges and fails when it is told to."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread


class Served(ThreadingHTTPServer):
    """What it was asked for, and what it is to do wrong.

    Attributes:
        faults: by name of a file, what the next requests for it meet, one after the other: a status, "cut" after half
            of the bytes, "slow", "whole" for no ranges. "*" is any file.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: dict[str, list[int | str]] = {}
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.lock = Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, name: str) -> int | str | None:
        with self.lock:
            self.requests[name] += 1
            for key in (name, "*"):
                if self.faults.get(key):
                    return self.faults[key].pop(0)
        return None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is none."""


class _Handler(BaseHTTPRequestHandler):
    server: Served
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        fault, path = self.server.fault(name), self.server.folder / name
        if isinstance(fault, int):
            return self._fail(fault)
        if not path.is_file():
            return self._fail(404)
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and fault != "whole":
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            if first > last:
                return self._fail(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            content = content[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "slow":
            for byte in range(0, len(content), max(1, len(content) // 4)):
                self.wfile.write(content[byte : byte + max(1, len(content) // 4)])
                self.wfile.flush()
                time.sleep(0.02)
            return None
        if fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return None
        self.wfile.write(content)
        with self.server.lock:
            self.server.sent[name] += len(content)
        return None

    def _fail(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """The folder at a URL while the block lasts."""
    server = Served(folder)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
