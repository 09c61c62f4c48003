"""A server on the loopback that speaks as much of the Hugging Face Hub's protocol as loading and saving take."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = ".safetensors"  # such files are on another host, as large ones of the Hub are
TOKEN = "hf_secret"


@dataclass
class Repository:
    """Commits with their files, branches and tags."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    faults: dict[str, str] = field(default_factory=dict)  # of files; see `Handler.content`

    def commit(self, files: dict[str, bytes], *refs: str) -> str:
        """Add a commit, at the end of main and under other references."""
        sha = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs.update(dict.fromkeys(("main", *refs), sha))
        return sha


class Hub:
    """The repositories of a server, what was asked of it, and large files on their way into a commit."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.port = 0
        self.refuse = ""  # the beginning of paths that are answered by 503
        self.resumes = True  # whether it sends parts of files

    def add(self, name: str, files: dict[str, bytes], *refs: str) -> Repository:
        repository = self.repositories.setdefault(name, Repository())
        repository.commit(files, *refs)
        return repository

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content_Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, value: object, status: int = 200) -> None:
            self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

        def refused(self, status: int, code: str) -> None:
            self.answer(status, X_Error_Code=code, X_Error_Message=code)

        def repository(self, name: str) -> Repository | None:
            """The repository of a request, unless the request is answered here."""
            found = hub.repositories.get(name)
            if found is None:
                self.refused(404, "RepoNotFound")
            elif found.gated:
                self.refused(403, "GatedRepo")
            elif found.private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.refused(401, "RepoNotFound")
            else:
                return found
            return None

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            if hub.refuse and path.startswith(hub.refuse):
                self.answer(503)
            elif found := re.fullmatch(r"(?:/cdn)?/([^/]+/[^/]+)/resolve/(.+)/([^/]+)", path):
                self.file(*found.groups())
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(?:revision|tree)/(.+))?", path):
                self.listing(*found.groups())
            else:
                self.answer(404)

        def at(self, repository: Repository, revision: str) -> str | None:
            revision = revision.replace("%2F", "/")
            sha = revision if revision in repository.commits else repository.refs.get(revision)
            if sha is None:
                self.refused(404, "RevisionNotFound")
            return sha

        def listing(self, name: str, revision: str | None) -> None:
            repository = self.repository(name)
            sha = repository and self.at(repository, revision or "main")
            if repository is None or sha is None:
                return
            files = repository.commits[sha]
            if "/tree/" in self.path:
                self.json([{"type": "file", "path": f, "size": len(b), "oid": "0" * 40} for f, b in files.items()])
            else:
                self.json({"id": name, "sha": sha, "siblings": [{"rfilename": f} for f in files]})

        def file(self, name: str, revision: str, file: str) -> None:
            large, cdn = file.endswith(LARGE), self.path.startswith("/cdn")
            repository = hub.repositories[name] if cdn else self.repository(name)
            sha = repository and self.at(repository, revision)
            if repository is None or sha is None:
                return
            content = repository.commits[sha].get(file)
            if content is None:
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
                return
            headers = {"X_Repo_Commit": sha, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            if large and not cdn:
                headers |= {"X_Linked_Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
                headers |= {
                    "X_Linked_Size": str(len(content)),
                    "Location": f"http://localhost:{hub.port}/cdn{self.path}",
                }
                self.answer(302, **headers)
            elif self.command == "HEAD":
                self.answer(200, **(headers | {"Content_Length": str(len(content))}))
            else:
                self.content(repository, file, content, headers)

        def content(self, repository: Repository, file: str, content: bytes, headers: dict[str, str]) -> None:
            """A file, with its fault: "changed", "short" (the first half, as if it were all) or "cut" (the connection
            ends in the middle, this one time)."""
            fault, size = repository.faults.get(file), len(content)
            first = int(re.sub(r"\D", "", self.headers.get("Range") or "0"))
            if first and hub.resumes:
                headers |= {"Content_Range": f"bytes {first}-{size - 1}/{size}"}
                self.answer(206, content[first:], **headers)
            elif fault == "changed":
                self.answer(200, content[: size // 2] + b"?" + content[size // 2 + 1 :], **headers)
            elif fault == "short":
                self.answer(200, content[: size // 2], **headers)
            elif fault == "cut":
                del repository.faults[file]
                self.send_response(200)
                self.send_header("Content-Length", str(size))
                self.end_headers()
                self.wfile.write(content[: size // 2])
                self.close_connection = True
            else:
                self.answer(200, content, **headers)

        def do_PUT(self) -> None:
            hub.requests.append(f"PUT {self.path}")
            hub.uploads[self.path.rpartition("/")[2]] = self.body()
            self.answer(200)

        def do_POST(self) -> None:
            hub.requests.append(f"POST {self.path}")
            body = self.body()
            if hub.refuse and self.path.startswith(hub.refuse):
                self.answer(503)
            elif self.path == "/api/validate-yaml":
                self.json({"errors": [], "warnings": []})
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.refused(401, "")
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                private = asked.get("private") is True or asked.get("visibility") == "private"
                status = 409 if name in hub.repositories else 200
                hub.repositories.setdefault(
                    name, Repository(private=private, refs={"main": "0" * 40}, commits={"0" * 40: {}})
                )
                self.json({"url": f"{hub.url}/{name}", "id": name}, status)
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
                modes = [
                    (f["path"], "lfs" if f["path"].endswith(LARGE) else "regular") for f in json.loads(body)["files"]
                ]
                self.json({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]})
            elif self.path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    {**o, "actions": {"upload": {"href": f"{hub.url}/upload/{o['oid']}"}}}
                    for o in json.loads(body)["objects"]
                ]
                self.json({"transfer": "basic", "objects": objects})
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
                sha = self.committed(hub.repositories[found[1]], body)
                url = f"{hub.url}/{found[1]}/commit/{sha}"
                self.json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})
            else:
                self.answer(404)

        def committed(self, repository: Repository, body: bytes) -> str:
            files = dict(repository.commits[repository.refs["main"]])
            for item in map(json.loads, body.splitlines()):
                value = item["value"]
                if item["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    files[value["path"]] = hub.uploads.pop(value["oid"])
            return repository.commit(files)

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub with its server, which runs while the context lasts."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(hub)) as server:
        server.daemon_threads = True
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
