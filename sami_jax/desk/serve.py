"""`sami desk`: listens, says where, and serves until it is stopped."""

import os
import socket
from collections.abc import Callable

import uvicorn

from sami_jax.desk.app import make_app
from sami_jax.desk.guard import Entrance
from sami_jax.desk.pages import Places
from sami_jax.errors import UserError
from sami_jax.ground.terminal import console, show

HERE = "127.0.0.1"
MOST_AT_ONCE = 400  # connections


def serve(places: Places, host: str | None, port: int) -> None:
    """
    Args:
      host: an address to listen on; a browser then gets in by a token. None: on this machine alone.
      port: 0 takes any that is free.
    Raises:
      UserError: a folder that is not what it should be, or an address that cannot be listened on.
    """
    entrance = (
        Entrance(lambda path: show(f"for one browser, once: {_address(host or HERE, listening)}{path}"))
        if host
        else None
    )
    app = make_app(places, entrance)
    listening = _listen(host or HERE, port)

    def tell() -> None:
        if entrance:
            entrance.open()
        else:
            show(f"{_address(HERE, listening)}/")
        console.quiet = True  # what is computed for a page is no news in the terminal

    settings = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=MOST_AT_ONCE,
    )
    _Server(settings, tell).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says where it is once it serves, and can be stopped as it is meant to."""

    def __init__(self, settings: uvicorn.Config, tell: Callable[[], None]):
        super().__init__(settings)
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=MOST_AT_ONCE)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise UserError(f"{host}, port {port}: {reason}; give another --port or --host") from None


def _address(host: str, listening: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
