"""A small stand-in for the Hugging Face Hub: enough of its API to create, push and pull, on loopback, in memory.

    with HubStandIn() as hub:
        environment = hub.environment("user")  # HF_ENDPOINT and the rest, for a process that is started

As a program it serves until it is killed; its first line lists the variables that a shell must export to use it.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from huggingface_hub import constants

LARGE = (".safetensors", ".png")  # uploaded separately before the commit, as with Git LFS


@dataclass
class Repository:
    """Commits are whole trees: path → content. A branch or tag names a commit."""

    owner: str
    private: bool
    sdk: str | None = None
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, bytes], message: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {message} {sorted(tree)}".encode()).hexdigest()
        self.commits[sha] = tree
        self.messages.append(message)
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        """The commit that a branch, tag or hash names."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        return sha if sha in self.commits else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.find(revision) or ""]


class HttpError(Exception):
    """An answer of the Hub other than 200: message and code are in headers."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Failure:
    """Injected failure: requests whose `METHOD path` matches get this status, or a closed connection for None."""

    pattern: str
    status: int | None
    times: int


class HubStandIn(AbstractContextManager):
    """The stand-in; it serves from a thread while it is entered.

    Args:
        users: Their tokens are `hf_NAME`.
    """

    def __init__(self, users: tuple[str, ...] = ("user", "stranger"), port: int = 0) -> None:
        self.tokens = {f"hf_{name}": name for name in users}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures: list[Failure] = []
        self.lock = threading.RLock()
        outer = self

        class Handler(_Handler):
            hub = outer

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, user: str | None = None) -> dict[str, str]:
        """Variables that make huggingface_hub talk to the stand-in, as this user or as nobody."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return variables | ({"HF_TOKEN": f"hf_{user}"} if user else {})

    def adopt(self, patch: Any) -> None:
        """Make this process talk to the stand-in as `user`, by a monkeypatch of pytest."""
        patch.setattr(constants, "ENDPOINT", self.url)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", "hf_user")

    def fail(self, pattern: str, status: int | None, times: int = 10**6) -> None:
        self.failures.append(Failure(pattern, status, times))

    def repository(self, repo_id: str, kind: str = "model") -> Repository | None:
        return self.repositories.get((kind, repo_id))


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on the screen."""

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._read_chunks()
        address = urlsplit(self.path)
        line = f"{self.command} {unquote(address.path)}"
        with self.hub.lock:
            self.hub.requests.append(line)
            for failure in self.hub.failures:
                if failure.times and re.search(failure.pattern, line):
                    failure.times -= 1
                    return self._break(failure.status)
            try:
                # Branches may have slashes in them, quoted: they are taken apart before they are unquoted.
                status, content, headers = self._route(self.command, address.path, body)
            except HttpError as error:
                status, content = error.status, {"error": str(error)}
                headers = {"X-Error-Message": str(error), "X-Error-Code": error.code}
        self._send(status, content, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 (names of http.server)

    def _read_chunks(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _break(self, status: int | None) -> None:
        if status is None:
            self.close_connection = True
            self.connection.close()
            return
        self._send(status, {"error": "injected"}, {"X-Error-Message": "injected"})

    def _send(self, status: int, content: Any, headers: dict[str, str]) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def user(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and token not in self.hub.tokens:
            raise HttpError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(token)

    def _route(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        for verbs, pattern, answer in _ROUTES:
            if method in verbs.split() and (match := re.fullmatch(pattern, path)):
                found = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                given = answer(self, body, **found)
                return given if isinstance(given, tuple) else (200, given, {})
        raise HttpError(404, f"The stand-in has no {method} {path}")

    def _find(self, kind: str, repo_id: str, writing: bool = False) -> Repository:
        """Find a repository; for users who may not see it, it does not exist."""
        kind = kind.rstrip("s") or "model"
        found = self.hub.repositories.get((kind, repo_id))
        if found is None or (found.private and self.user != found.owner):
            raise HttpError(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if writing and self.user is None:
            raise HttpError(401, "Invalid username or password.")
        if writing and self.user != found.owner:
            raise HttpError(403, "You don't have the rights to write to it.")
        return found

    def _commit_of(self, repository: Repository, revision: str) -> str:
        sha = repository.find(revision)
        if sha is None:
            raise HttpError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    def create(self, body: bytes) -> Any:
        asked = json.loads(body)
        owner = asked.get("organization") or self.user
        kind, repo_id = asked.get("type", "model"), f"{owner}/{asked['name']}"
        if self.user is None:
            raise HttpError(401, "Invalid username or password.")
        if owner != self.user:
            raise HttpError(403, f"You don't have the rights to create a {kind} under the namespace {owner!r}.")
        if (kind, repo_id) in self.hub.repositories:
            raise HttpError(409, "You already created this repo")
        private = asked.get("private") or asked.get("visibility") == "private"  # hub 1 and hub 2
        repository = Repository(owner, bool(private), asked.get("sdk"))
        repository.commit("main", {".gitattributes": b""}, "initial commit")
        self.hub.repositories[kind, repo_id] = repository
        return {"url": f"{self.hub.url}/{'spaces/' if kind == 'space' else ''}{repo_id}", "id": repo_id}

    def delete(self, body: bytes) -> Any:
        asked = json.loads(body)
        kind, repo_id = asked.get("type") or "model", f"{asked.get('organization') or self.user}/{asked['name']}"
        self._find(kind, repo_id, writing=True)
        del self.hub.repositories[kind, repo_id]
        return {}

    def validate(self, body: bytes) -> Any:
        block = re.match(r"---\n(.*?)\n---", json.loads(body)["content"], re.DOTALL)
        try:
            valid = isinstance(yaml.safe_load(block[1]) if block else None, dict)
        except yaml.YAMLError:
            valid = False
        return {} if valid else (400, {"errors": [{"message": "metadata is not YAML"}]}, {})

    def whoami(self, body: bytes) -> Any:
        if self.user is None:
            raise HttpError(401, "Invalid username or password.")
        return {"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}}

    def info(self, body: bytes, kind: str, id: str, rev: str = "main") -> Any:
        repository = self._find(kind, id)
        sha = self._commit_of(repository, rev)
        files = repository.commits[sha]
        card = re.match(r"---\n(.*?)\n---", files.get("README.md", b"").decode(), re.DOTALL)
        data = yaml.safe_load(card[1]) if card else {}
        return {
            **{"id": id, "modelId": id, "sha": sha, "private": repository.private, "author": repository.owner},
            **{
                "siblings": [{"rfilename": name} for name in sorted(files)],
                "cardData": data,
                "tags": [],
                "disabled": False,
            },
            **{"pipeline_tag": data.get("pipeline_tag"), "library_name": data.get("library_name"), "gated": False},
            **{"downloads": 0, "likes": 0},
        }

    def tree(self, body: bytes, kind: str, id: str, rev: str, folder: str = "") -> Any:
        repository = self._find(kind, id)
        files = repository.commits[self._commit_of(repository, rev)]
        inside = {name: content for name, content in files.items() if name.startswith(f"{folder}/" if folder else "")}
        if folder and not inside:
            raise HttpError(404, f"{folder} does not exist", "EntryNotFound")
        return [
            {"type": "file", "path": name, "size": len(content), "oid": _oid(name, content)}
            for name, content in inside.items()
        ]

    def refs(self, body: bytes, kind: str, id: str) -> Any:
        repository = self._find(kind, id)
        refs = {
            group: [{"name": name, "ref": f"refs/{ref}/{name}", "targetCommit": sha} for name, sha in names.items()]
            for group, ref, names in (("branches", "heads", repository.branches), ("tags", "tags", repository.tags))
        }
        return refs | {"converts": []}

    def branch(self, body: bytes, kind: str, id: str, name: str) -> Any:
        repository = self._find(kind, id, writing=True)
        if self.command == "DELETE":
            repository.branches.pop(name)
            return {}
        if name in repository.branches:
            raise HttpError(409, "Reference already exists")
        repository.branches[name] = self._commit_of(repository, json.loads(body or b"{}").get("startingPoint", "main"))
        return {}

    def tag(self, body: bytes, kind: str, id: str, rev: str) -> Any:
        repository = self._find(kind, id, writing=True)
        repository.tags[json.loads(body)["tag"]] = self._commit_of(repository, rev)
        return {}

    def preupload(self, body: bytes, kind: str, id: str, rev: str) -> Any:
        repository = self._find(kind, id, writing=True)
        there = repository.commits[self._commit_of(repository, rev)]
        answers = []
        for file in json.loads(body)["files"]:
            name = file["path"]
            oid = _oid(name, there[name]) if name in there else None
            mode = "lfs" if name.endswith(LARGE) else "regular"
            answers.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def large_batch(self, body: bytes, id: str, kind: str = "") -> Any:
        self._find(kind, id, writing=True)
        objects = json.loads(body)["objects"]
        for each in objects:
            if each["oid"] not in self.hub.large:
                each["actions"] = {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def large_upload(self, body: bytes, oid: str) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise HttpError(400, "content and hash differ")
        self.hub.large[oid] = body
        return {}

    def commit(self, body: bytes, kind: str, id: str, rev: str) -> Any:
        repository = self._find(kind, id, writing=True)
        if rev not in repository.branches:
            raise HttpError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        tree, message = dict(repository.files(rev)), ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                tree[value["path"]] = self.hub.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                del tree[value["path"]]
        sha = repository.commit(rev, tree, message)
        space = "spaces/" if repository.sdk else ""
        return {"commitOid": sha, "commitUrl": f"{self.hub.url}/{space}{id}/commit/{sha}", "success": True}

    def resolve(self, body: bytes, id: str, rev: str, file: str, kind: str = "") -> Any:
        repository = self._find(kind, id)
        sha = self._commit_of(repository, rev)
        if file not in repository.commits[sha]:
            raise HttpError(404, "Entry not found", "EntryNotFound")
        content = repository.commits[sha][file]
        return 200, content, {"X-Repo-Commit": sha, "ETag": f'"{_oid(file, content)}"'}


def _oid(name: str, content: bytes) -> str:
    """Hash of a file's content as on the Hub: SHA-256 for large files, the hash of git for others."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_REPO = r"/api/(?P<kind>models|spaces)/(?P<id>[^/]+/[^/]+)"
_FILES = r"/(?P<kind>spaces(?=/))?/?(?P<id>[^/]+/[^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("POST", r"/api/repos/create", _Handler.create),
    ("DELETE", r"/api/repos/delete", _Handler.delete),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("GET HEAD", _REPO, _Handler.info),
    ("GET HEAD", _REPO + r"/revision/(?P<rev>[^/]+)", _Handler.info),
    ("GET", _REPO + r"/tree/(?P<rev>[^/]+)(/(?P<folder>.+))?", _Handler.tree),
    ("GET", _REPO + r"/refs", _Handler.refs),
    ("POST DELETE", _REPO + r"/branch/(?P<name>[^/]+)", _Handler.branch),
    ("POST", _REPO + r"/tag/(?P<rev>[^/]+)", _Handler.tag),
    ("POST", _REPO + r"/preupload/(?P<rev>[^/]+)", _Handler.preupload),
    ("POST", _REPO + r"/commit/(?P<rev>[^/]+)", _Handler.commit),
    ("POST", _FILES + r"\.git/info/lfs/objects/batch", _Handler.large_batch),
    ("PUT", r"/large/(?P<oid>\w+)", _Handler.large_upload),
    ("GET HEAD", _FILES + r"/resolve/(?P<rev>[^/]+)/(?P<file>.+)", _Handler.resolve),
)


def main() -> None:
    """Serve until killed."""
    with HubStandIn() as hub:
        print(" ".join(f"{name}={value}" for name, value in hub.environment("user").items()), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
