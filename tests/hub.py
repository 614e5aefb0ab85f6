"""A hub of models on this machine that speaks what huggingface_hub needs to push and to load."""

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

COMMIT = "0" * 39 + "1"


@dataclass
class Hub:
    """What a hub holds and was asked for."""

    token: str = "hf_known"
    repositories: dict[str, bool] = field(default_factory=dict)
    """Names, and whether they are private."""
    files: dict[str, bytes] = field(default_factory=dict)
    """By REPOSITORY/NAME."""
    num_commits: int = 0
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    """Small files are sent within the commit, as the hub asks for in ``preupload``."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]
            self._answer(200, {"files": modes})
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._answer(200, {})

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):  # whether a repository exists
            is_known = any(name in self.path for name in self.hub.repositories)
            self._answer(200 if is_known else 404, {"id": "known"} if is_known else {})
        else:
            self._send_file(with_body=True)

    def do_HEAD(self) -> None:
        self._send_file(with_body=False)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name.startswith("others/"):
            self._answer(403, {"error": "You don't have the rights to create a model here"})
            return
        is_private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.repositories.setdefault(name, is_private)
        self._answer(200, {"url": f"{self.hub.address}/{name}", "name": name})

    def _commit(self, body: bytes) -> None:
        name = self.path.split("/api/models/")[1].split("/commit/")[0]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                self.hub.files[f"{name}/{value['path']}"] = base64.b64decode(value["content"])
        self.hub.num_commits += 1
        url = f"{self.hub.address}/{name}/commit/{COMMIT}"
        self._answer(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})

    def _send_file(self, *, with_body: bool) -> None:
        content = self.hub.files.get(self.path.lstrip("/").replace("/resolve/main/", "/"))
        if content is None:
            self._answer(404, {"error": "not found"})
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _answer(self, status: int, values: dict[str, Any]) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if "error" in values:
            self.send_header("X-Error-Message", values["error"])
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers on the loopback address until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
