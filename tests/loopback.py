"""Servers on this machine that answer like the Hugging Face hub and like PyPI's simple index.

    with FakeHub() as hub:
        commit = hub.add("owner/name", {"config.json": b"{}", "model.safetensors": weights})
        hub.faults.append(Fault("model.safetensors", cut_after=1000))
        ... HF_ENDPOINT=hub.url ...
        assert hub.sent("model.safetensors") == [1000, len(weights) - 1000]

A `Fault` spoils the next requests of an address. The hub sends large files (`.safetensors`) from a
second address, as the true one does from its CDN. What the answers look like is taken from the
client (`huggingface_hub`), which tests use against it.
"""

import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

_BLOCK = 1 << 14
GATED, NO_REPO = "GatedRepo", "RepoNotFound"


@dataclass
class Fault:
    """What goes wrong with the next requests of an address.

    Attributes:
        part: in the address's path.
        times: how many requests are spoilt.
        method: of the requests.
        status: an error's status, instead of the answer.
        headers: of the error.
        body: sent instead of the content, under the content's headers; or the text of the error.
        cut_after: number of bytes of the body after which the connection ends.
        reset: it ends with a reset instead of a plain end.
        ignores_range: the whole file is sent, although a part was asked for.
        pause: seconds before each block of the body.
        block: bytes of a block.
    """

    part: str
    times: int = 1
    method: str = "GET"
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    reset: bool = False
    ignores_range: bool = False
    pause: float = 0.0
    block: int = _BLOCK


@dataclass
class Request:
    """A request that was answered: `n_sent` is the number of bytes of the body that were sent."""

    method: str
    path: str
    headers: Message
    status: int = 0
    n_sent: int = 0


class Loopback:
    """A server in a thread, which records requests; subclasses answer them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.connections: list[socket.socket] = []
        owner = self

        class Handler(_Handler):
            loopback = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        serve = {"poll_interval": 0.01}
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs=serve, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server: its address refuses connections from now on."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):  # closed long ago
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def answer(self, handler: "_Handler", request: Request) -> None:
        """Answer a request with the handler's `send_...` methods."""
        raise NotImplementedError

    def fault_of(self, request: Request) -> Fault | None:
        """Return the fault of a request and count it."""
        for fault in self.faults:
            if fault.times and fault.part in request.path and fault.method == request.method:
                fault.times -= 1
                return fault
        return None

    def sent(self, part: str, method: str = "GET") -> list[int]:
        """Return the bytes of the bodies sent for the requests of a path, in their order."""
        found = [each for each in self.requests if part in each.path and each.method == method]
        return [each.n_sent for each in found if each.n_sent]


class _Handler(BaseHTTPRequestHandler):
    """Answers requests with faults, or as the server says."""

    protocol_version = "HTTP/1.1"
    loopback: Loopback
    request_record: Request
    fault: Fault | None

    def setup(self) -> None:
        super().setup()
        self.loopback.connections.append(self.connection)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.request_record = Request(self.command, path, self.headers)
        self.loopback.requests.append(self.request_record)
        self.fault = self.loopback.fault_of(self.request_record)
        if self.fault is not None and self.fault.status is not None:
            self.send_status(self.fault.status, self.fault.headers, self.fault.body or b"")
            return
        self.loopback.answer(self, self.request_record)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def send_status(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """Send an answer with a short body."""
        self._send_head(status, {**(headers or {}), "Content-Length": str(len(body))})
        self._send_body(body)

    def send_json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        """Send JSON."""
        body = json.dumps(value).encode()
        self.send_status(200, {**(headers or {}), "Content-Type": "application/json"}, body)

    def send_file(self, content: bytes, headers: Mapping[str, str]) -> None:
        """Send a file, or the range of it that the request asks for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, status = 0, 200
        more = {"Accept-Ranges": "bytes"}
        if wanted and not (self.fault and self.fault.ignores_range):
            start = int(wanted[1])
            if start >= len(content):
                self.send_status(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            end = min(int(wanted[2] or len(content) - 1), len(content) - 1)
            more["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            status, content = 206, content[: end + 1]
        body = content[start:]
        self._send_head(status, {**headers, **more, "Content-Length": str(len(body))})
        if self.fault is not None and self.fault.body is not None:
            body = self.fault.body[start:]
        self._send_body(body)

    def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.request_record.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_body(self, body: bytes) -> None:
        """Send a body in blocks, slowly or not to its end if a fault says so."""
        if self.command == "HEAD":
            return
        fault = self.fault or Fault("")
        end = len(body) if fault.cut_after is None else min(fault.cut_after, len(body))
        try:
            for start in range(0, end, fault.block):
                time.sleep(fault.pause)
                block = body[start : min(start + fault.block, end)]
                self.wfile.write(block)
                self.request_record.n_sent += len(block)
        except OSError:  # the client is gone
            self.close_connection = True
        if fault.cut_after is not None:
            self._cut(fault)

    def _cut(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.reset:
            time.sleep(0.05)  # a reset drops what the client has not read yet
            now = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            self.connection.close()


class _CDN(Loopback):
    """The hub's second address: files by their SHA-256."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        # The client takes a redirect to the same name for another address of the hub.
        self.url = self.url.replace("127.0.0.1", "localhost")

    def answer(self, handler: _Handler, request: Request) -> None:
        if "Authorization" in request.headers:  # as S3 does with a second signature
            handler.send_status(400, {}, b"Only one auth mechanism allowed")
            return
        handler.send_file(self.files[request.path.split("/")[2]], {"ETag": '"not-the-digest"'})


@dataclass
class _Repo:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    is_gated: bool = False
    is_private: bool = False


class FakeHub(Loopback):
    """The Hugging Face hub, as far as a download needs it.

    Attributes:
        tokens: that are accepted; others are refused, as the hub does.
        members: tokens of accounts that may read gated and private models.
        renamed: old ids of models that have another now.
        cdn: the server of large files.
    """

    def __init__(self) -> None:
        self.repos: dict[str, _Repo] = {}
        self.tokens: set[str] = set()
        self.members: set[str] = set()
        self.renamed: dict[str, str] = {}
        self.cdn = _CDN()
        super().__init__()

    def stop(self) -> None:
        super().stop()
        self.cdn.stop()

    def add(
        self, hub_id: str, files: Mapping[str, bytes], *, gated: bool = False, private: bool = False
    ) -> str:
        """Commit files to the main branch of a model; return the commit."""
        repo = self.repos.setdefault(hub_id, _Repo())
        repo.is_gated, repo.is_private = gated, private
        text = json.dumps([hub_id, len(repo.commits), sorted(files)])
        commit = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        repo.commits[commit] = dict(files)
        repo.branches["main"] = commit
        for content in files.values():
            self.cdn.files[_sha256(content)] = content
        return commit

    def answer(self, handler: _Handler, request: Request) -> None:
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", request.path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.path)
        found = listing or file
        if found is None:
            handler.send_status(404, {}, b"Not found")
            return
        if new := self.renamed.get(found[1]):
            handler.send_status(307, {"Location": request.path.replace(found[1], new)})
            return
        revision = (listing[3] if listing else found[2]) or "main"
        if refusal := self._refusal(found[1], revision, request, is_file=file is not None):
            handler.send_status(*refusal)
            return
        repo = self.repos[found[1]]
        commit = repo.branches.get(revision, revision)
        if file:
            self._send_resolved(handler, repo.commits[commit], commit, file[3])
        elif listing and listing[2] == "tree":
            handler.send_json([_tree_entry(*each) for each in repo.commits[commit].items()])
        else:
            names = [{"rfilename": name} for name in repo.commits[commit]]
            info = {"id": found[1], "modelId": found[1], "sha": commit, "siblings": names}
            gated = "auto" if repo.is_gated else False
            handler.send_json({**info, "private": repo.is_private, "gated": gated, "tags": []})

    def _refusal(
        self, hub_id: str, revision: str, request: Request, *, is_file: bool
    ) -> tuple[int, dict[str, str]] | None:
        """Return status and headers of an error; None if the request may be answered."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens | self.members:
            return _error(401, None, "Invalid credentials in Authorization header")
        repo, is_member = self.repos.get(hub_id), token in self.members
        if repo is None or (repo.is_private and not is_member):
            # Without a token nobody learns whether a model exists.
            return _error(404 if token else 401, NO_REPO, "Repository not found")
        if is_file and repo.is_gated and not is_member:
            text = f"Access to model {hub_id} is restricted."
            return _error(403 if token else 401, GATED, text)
        if revision not in repo.branches and revision not in repo.commits:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def _send_resolved(
        self, handler: _Handler, files: Mapping[str, bytes], commit: str, name: str
    ) -> None:
        """Send a small file, or the address of a large one."""
        headers = {"X-Repo-Commit": commit}
        if name not in files:
            error, more = _error(404, "EntryNotFound", "Entry not found")
            handler.send_status(error, {**headers, **more})
            return
        content = files[name]
        if not _is_large(name):
            handler.send_file(content, {**headers, "ETag": f'"{_git_sha1(content)}"'})
            return
        sha256 = _sha256(content)
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"'}
        address = f"{self.cdn.url}/files/{sha256}/{name}?signature=1"
        handler.send_status(302, {**headers, **linked, "Location": address}, b"Found")


def _error(status: int, code: str | None, text: str) -> tuple[int, dict[str, str]]:
    return status, {"X-Error-Message": text, **({"X-Error-Code": code} if code else {})}


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _tree_entry(name: str, content: bytes) -> dict[str, Any]:
    """Return a file as the hub's tree lists it."""
    entry = {"type": "file", "path": name, "size": len(content), "oid": _git_sha1(content)}
    if _is_large(name):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_sha1(content: bytes) -> str:
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


class FakeIndex(Loopback):
    """A package index: PyPI's simple pages, and wheels by their file names in `wheels`."""

    def __init__(self) -> None:
        self.wheels: dict[str, bytes] = {}
        super().__init__()

    def answer(self, handler: _Handler, request: Request) -> None:
        if request.path.startswith("/files/"):
            handler.send_file(self.wheels[request.path.removeprefix("/files/")], {})
            return
        package = request.path.removeprefix("/simple/").strip("/").replace("-", "_")
        links = [
            f'<a href="/files/{name}#sha256={_sha256(content)}">{name}</a>'
            for name, content in self.wheels.items()
            if name.startswith(f"{package}-")
        ]
        if not links:
            handler.send_status(404)
            return
        page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
        handler.send_status(200, {"Content-Type": "text/html"}, page.encode())
