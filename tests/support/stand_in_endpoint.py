"""A server of the OpenAI protocol in this process that answers as a test says, and remembers what it was asked."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

Answer = tuple  # status; bytes, a text, or what becomes JSON; headers, where there are more


class StandIn:
    """What a server was asked, and where it is."""

    def __init__(self, answer: Callable[[dict], Answer], port: int):
        self.answer, self.asked, self.headers = answer, [], []
        self.url = f"http://127.0.0.1:{port}/v1"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: "_Server"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.stand_in.asked.append(body)
            self.server.stand_in.headers.append({name.lower(): value for name, value in self.headers.items()})
        status, content, *headers = self.server.stand_in.answer(body)
        content = content if isinstance(content, bytes | str) else json.dumps(content)
        data = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in {"retry-after-ms": "1", **dict(*headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    stand_in: StandIn
    lock: threading.Lock


@contextlib.contextmanager
def answering(answer: Callable[[dict], Answer]) -> Iterator[StandIn]:
    """A server that answers each request's body so."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.stand_in, server.lock = StandIn(answer, server.server_address[1]), threading.Lock()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server.stand_in
    finally:
        server.shutdown()
        server.server_close()


def said(text: Any, finish: str | None = "stop", **message) -> dict:
    """A whole answer, in the chat's shape."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
