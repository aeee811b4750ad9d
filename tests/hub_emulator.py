"""The Hugging Face Hub on the loopback, as far as its client asks it about data set repositories.

Commits are kept whole and in order; large files go up apart and are named by a commit, as with Git LFS. Endpoints as in
huggingface_hub's `hf_api.py`, `_commit_api.py` and `lfs.py`.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

TOKEN = "hf_madeUpToken"


class Hub:
    """Repositories as lists of commits (id, files); `fail` may raise before a request (method, path) is answered."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.fail: Callable[[str, str], int | None] = lambda method, path: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, name: str) -> dict[str, bytes]:
        """What the newest commit holds."""
        return self.repositories[name][-1][1]

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        commits = self.repositories.setdefault(name, [])
        whole = {**(commits[-1][1] if commits else {}), **files}
        commits.append((hashlib.sha1(repr((len(commits), sorted(whole.items()))).encode()).hexdigest(), whole))
        return commits[-1][0]


class _RefusedError(Exception):
    """A status, and what the Hub calls the fault."""


def _handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(self.path.split("?")[0]).strip("/")
            hub.requests.append((self.command, path))
            try:
                if status := hub.fail(self.command, path):
                    raise _RefusedError(status, "made up")
                self._answer(200, *self._act(path.split("/"), body))
            except _RefusedError as refused:
                self._answer(refused.args[0], b"{}", {"X-Error-Code": refused.args[1], "X-Error-Message": "no"})

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

        def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _act(self, parts: list[str], body: bytes) -> tuple[bytes, dict[str, str]]:  # noqa: PLR0911
            writes = self.command in ("POST", "PUT")
            if writes and parts[0] != "upload" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise _RefusedError(401, "RepoNotFound")
            match parts:
                case ["api", "repos", "create"]:
                    asked = json.loads(body)
                    name = f"{asked.get('organization') or 'owner'}/{asked['name']}"
                    hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
                    hub.commit(name, {".gitattributes": b"*.parquet filter=lfs\n"})
                    return _json({"url": f"{hub.url}/datasets/{name}", "name": name, "id": "1"})
                case ["api", "validate-yaml"]:
                    return _json({"errors": [], "warnings": []})
                case ["api", "datasets", owner, name, "revision", revision]:
                    sha, files = self._find(f"{owner}/{name}", revision)
                    return _json({"id": f"{owner}/{name}", "sha": sha, "siblings": [{"rfilename": n} for n in files]})
                case ["api", "datasets", owner, name, "tree", revision]:
                    files = self._find(f"{owner}/{name}", revision)[1]
                    return _json(
                        [{"type": "file", "path": n, "size": len(d), "oid": _sha1(d)} for n, d in files.items()]
                    )
                case ["api", "datasets", owner, name, "preupload", _]:
                    self._find(f"{owner}/{name}", "main")
                    modes = [(one["path"], one["path"].endswith(".parquet")) for one in json.loads(body)["files"]]
                    return _json({"files": [
                        {"path": n, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}
                        for n, large in modes
                    ]})  # fmt: skip
                case ["datasets", _, _, "info", "lfs", "objects", "batch"]:
                    objects = [
                        one if one["oid"] in hub.large
                        else {**one, "actions": {"upload": {"href": f"{hub.url}/upload/{one['oid']}"}}}
                        for one in json.loads(body)["objects"]
                    ]  # fmt: skip
                    return _json({"objects": objects, "transfer": "basic"})
                case ["upload", oid]:
                    if hashlib.sha256(body).hexdigest() != oid:
                        raise _RefusedError(400, "BadDigest")
                    hub.large[oid] = body
                    return b"", {}
                case ["api", "datasets", owner, name, "commit", _]:
                    return self._commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
                case ["datasets", owner, name, "resolve", revision, *path]:
                    sha, files = self._find(f"{owner}/{name}", revision)
                    if "/".join(path) not in files:
                        raise _RefusedError(404, "EntryNotFound")
                    data = files["/".join(path)]
                    return data, {"ETag": f'"{_sha1(data)}"', "X-Repo-Commit": sha}
            raise _RefusedError(404, "RepoNotFound")

        def _commit(self, name: str, lines: list[dict[str, Any]]) -> tuple[bytes, dict[str, str]]:
            head, *operations = ((line["key"], line["value"]) for line in lines)
            if head[1].get("parentCommit") not in (None, hub.repositories[name][-1][0]):
                raise _RefusedError(412, "")
            files = {
                value["path"]: base64.b64decode(value["content"]) if kind == "file" else hub.large[value["oid"]]
                for kind, value in operations
            }
            sha = hub.commit(name, files)
            return _json({"commitUrl": f"{hub.url}/datasets/{name}/commit/{sha}", "commitOid": sha})

        def _find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
            if name not in hub.repositories:
                raise _RefusedError(404, "RepoNotFound")
            if revision == "main":
                return hub.repositories[name][-1]
            for sha, files in hub.repositories[name]:
                if sha == revision:
                    return sha, files
            raise _RefusedError(404, "RevisionNotFound")

    return Handler


def _json(value: Any) -> tuple[bytes, dict[str, str]]:
    return json.dumps(value).encode(), {"Content-Type": "application/json"}


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub to which the client of this process is led, logged in, without Xet, of which there is none here."""
    from huggingface_hub import constants, file_download

    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):
        if hasattr(module, "HUGGINGFACE_CO_URL_TEMPLATE"):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.stop()
