"""A hub that stands in: the part of the Hugging Face hub's protocol that a push uses, on a port of this machine."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_standInStandInStandIn"


class Hub:
    """What the hub holds, and whom it lets in."""

    def __init__(self):
        self.url = ""
        self.private: dict[str, bool] = {}  # repository -> whether it is private
        self.files: dict[str, dict[str, bytes]] = {}  # repository -> path -> content
        self.objects: dict[str, bytes] = {}  # large files by SHA-256
        self.commits: list[str] = []  # messages
        self.requests: list[str] = []
        self.answer: int | None = None  # a status that all requests get

    def respond(self, handler: "_Handler", method: str) -> None:
        path = handler.path.partition("?")[0]
        self.requests.append(f"{method} {path}")
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if method == "PUT":
            sha = path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == sha
            self.objects[sha] = body
            return handler.give(200, {})
        if self.answer:
            return handler.give(self.answer, {"error": "as told"})
        if handler.headers.get("Authorization") != f"Bearer {TOKEN}":
            return handler.give(401, {"error": "Invalid credentials"})
        if path == "/api/repos/create":
            return self._create(handler, json.loads(body))
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---")
            return handler.give(200, {"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            name = found[1]
            return handler.give(200, {"id": name, "modelId": name, "private": self.private[name], "sha": "0" * 40})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            return handler.give(200, {"files": [self._mode(file) for file in json.loads(body)["files"]]})
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return handler.give(200, self._batch(json.loads(body)))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(handler, found[1], body)
        return handler.give(404, {"error": f"no {path} here"})

    def _create(self, handler, asked: dict) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.files:
            return handler.give(409, {"error": "exists", "url": f"{self.url}/{name}"})
        self.files[name] = {}
        self.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
        return handler.give(200, {"url": f"{self.url}/{name}", "name": name})

    def _mode(self, file: dict) -> dict:
        large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _batch(self, asked: dict) -> dict:
        def one(found: dict) -> dict:
            upload = {"href": f"{self.url}/storage/{found['oid']}", "header": {}}
            return {**found, "actions": {"upload": upload}}

        return {"transfer": "basic", "objects": [one(found) for found in asked["objects"]]}

    def _commit(self, handler, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            elif line["key"] == "file":
                self.files[name][value["path"]] = base64.b64decode(value["content"])
            else:
                self.files[name][value["path"]] = self.objects[value["oid"]]
        oid = hashlib.sha1(body).hexdigest()
        handler.give(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}"})


class _Handler(BaseHTTPRequestHandler):
    def give(self, status: int, content) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.hub.respond(self, "GET")

    def do_POST(self):
        self.server.hub.respond(self, "POST")

    def do_PUT(self):
        self.server.hub.respond(self, "PUT")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def standing_in() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub, hub.url = hub, f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
