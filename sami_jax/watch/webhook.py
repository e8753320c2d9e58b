"""Alarms sent to an address, one POST each: {"text": the line, "alarm": what watch.jsonl has of it}."""

import http.client
import json
from urllib.parse import SplitResult, urlsplit

from sami_jax.errors import UserError
from sami_jax.ground import credentials
from sami_jax.ground.terminal import say
from sami_jax.watch.alarm import Alarm

TIMEOUT = 10.0  # seconds


class Webhook:
    """What cannot be sent is said, and costs nothing else: the alarm stands in watch.jsonl."""

    def __init__(self, url: str):
        """
        Raises:
          UserError: no address of the web.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = SplitResult("", "", "", "", ""), None
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or not url.isascii()
            or any(c <= " " for c in url)
        ):
            raise UserError("--webhook: not an address of the web; give one that begins with https://")
        self._host, self._port, self._secure = parts.hostname, port, parts.scheme == "https"
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if len(self._target) > 8:
            credentials.give(self._target)  # who knows it may send, too

    def send(self, alarm: Alarm) -> None:
        connect = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = connect(self._host, self._port, timeout=TIMEOUT)
        body = json.dumps({"text": f"sami watch: {alarm.line}", "alarm": alarm.record()}).encode()
        try:
            connection.request("POST", self._target, body, {"Content-Type": "application/json"})
            status = connection.getresponse().status
            if status >= 300:
                say(f"--webhook: {self._host} answered {status}; the alarm stands in watch.jsonl")
        except (OSError, http.client.HTTPException) as error:
            say(f"--webhook: {self._host}: {error}; the alarm stands in watch.jsonl")
        finally:
            connection.close()
