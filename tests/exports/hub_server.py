"""A server on this machine that answers what huggingface_hub asks when a model is pushed, and keeps what came."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_good"
OWNER = "somebody"
LARGE = ".safetensors"
"""What goes past the commit, as a large file."""


@dataclass
class HubServer:
    """Attributes:
    url: its address.
    private: of each repository, whether it is.
    commits: of each branch ("OWNER/NAME@BRANCH"), a commit each: message, and content by path.
    large: content by sha256.
    cards: every model card that it was asked to check.
    refuses: status and reason by part of a path: what it does not do.
    """

    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    commits: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)

    def answer(self, path: str, body: bytes, token: str) -> tuple[int, Any]:
        """Status and content of the answer to a request."""
        for part, (status, reason) in self.refuses.items():
            if part in path:
                return status, {"error": reason}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._upload(file) for file in json.loads(body)["objects"]]}
        _, _, _, owner, name, *rest = path.split("/")
        repository = f"{owner}/{name}"
        if repository not in self.private:
            return 404, {"error": "Repository not found"}
        if not rest:
            return 200, {"id": repository, "private": self.private[repository], "siblings": [], "tags": []}
        kind, branch = rest[0], unquote(rest[1])
        if kind == "branch":
            self.commits.setdefault(f"{repository}@{branch}", [])
            return 200, {}
        if f"{repository}@{branch}" not in self.commits:
            return 404, {"error": f"Invalid rev id: {branch}"}
        if kind == "preupload":
            modes = {file["path"]: file["path"].endswith(LARGE) for file in json.loads(body)["files"]}
            files = [
                {"path": file, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                for file, large in modes.items()
            ]
            return 200, {"files": files}
        return self._commit(f"{repository}@{branch}", [json.loads(line) for line in body.splitlines()])

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        owner = wanted.get("organization") or OWNER
        name = f"{owner}/{wanted['name']}"
        if owner != OWNER:
            return 403, {"error": f"You don't have the rights to create a model under the namespace {owner!r}"}
        status = 409 if name in self.private else 200
        self.private.setdefault(name, wanted.get("visibility") == "private" or wanted.get("private") is True)
        self.commits.setdefault(f"{name}@main", [])
        return status, {"url": f"{self.url}/{name}", "name": name}

    def _upload(self, file: dict[str, Any]) -> dict[str, Any]:
        return {**file, "actions": {"upload": {"href": f"{self.url}/large/{file['oid']}"}}}

    def _commit(self, branch: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        message, files = "", {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        self.commits[branch].append((message, files))
        oid = hashlib.sha1(message.encode()).hexdigest()
        return 200, {"commitUrl": f"{self.url}/{branch.partition('@')[0]}/commit/{oid}", "commitOid": oid}


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """One on a free port, until the block ends."""
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        def _read(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _say(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:  # the library's name
            body = self._read()
            self._say(*hub.answer(urlsplit(self.path).path, body, self.headers.get("Authorization", "")))

        do_GET = do_POST  # noqa: N815

        def do_PUT(self) -> None:
            hub.large[self.path.rpartition("/")[2]] = self._read()
            self._say(200, {})

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
