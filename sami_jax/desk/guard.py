"""Who may ask the desk for what: in front of all pages.

Without --host the desk listens on this machine alone, and every browser on it is let in; pages of other sites, which such a browser
may show as well, are kept out by the names of hosts, origins and a token in each form. With --host a browser gets in by an address with a token
that is good for once, and keeps a cookie.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 2**18  # bytes
MOST_FIELDS = 500  # of a form
SLOWEST_BODY = 20.0  # seconds that a body may take to come
HERE = ("127.0.0.1", "localhost", "::1")
ENTRANCE = "/enter/"
FORM = "application/x-www-form-urlencoded"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not answered; `why` is a key of the texts."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status, self.why = status, why


class Entrance:
    """Tokens that let a browser in, each once; when one is used, the next is told."""

    def __init__(self, tell: Callable[[str], None]):
        self._tell = tell
        self._good: str | None = None

    def open(self) -> None:
        """Tells the path of the next token."""
        self._good = secrets.token_hex(32)
        self._tell(ENTRANCE + self._good)

    def take(self, token: str) -> bool:
        """Whether it is the one; then it is used."""
        if self._good is None or not _same(token, self._good):
            return False
        self.open()
        return True


class Guard:
    """Lets good requests pass to the pages, with request.state.form, .csrf and .session set; answers the others itself."""

    def __init__(self, app: ASGIApp, refuse: Callable[[Request, int, str], Response], entrance: Entrance | None):
        """
        Args:
          refuse: makes the page that says why.
          entrance: where browsers get in; None: the desk is for this machine, and they are in.
        """
        self._app, self._refuse, self._entrance = app, refuse, entrance
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        begun = {}

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if cookie := begun.get("session"):
                    headers.append("Set-Cookie", f"{self._cookie(request)}={cookie}; Path=/; HttpOnly; SameSite=Lax")
            await send(message)

        try:
            answer = await self._answer(request, begun) or self._app
        except Refused as refused:
            answer = self._refuse(request, refused.status, refused.why)
        except ClientDisconnect:
            return
        await answer(scope, receive, send_on)

    async def _answer(self, request: Request, begun: dict) -> Response | None:
        """An answer of our own, or None for the pages to answer.

        Args:
          begun: takes the session that begins with this request.
        Raises:
          Refused: neither.
        """
        request.state.form, request.state.csrf = {}, ""
        self._check_host(request)
        if request.method not in ("GET", "HEAD", "POST"):
            raise Refused(405, "refused/method")
        session = self._session(request)
        if session is None and self._entrance is None:
            session = begun["session"] = self._new_session()
        request.state.csrf = self._mark(f"form {session}") if session else ""
        path = request.scope["path"]
        if request.method == "POST":
            self._check_origin(request)
            request.state.form = await _form(request)
        if self._entrance and path.startswith(ENTRANCE):
            if request.method != "POST":  # a page with a button: whoever looks ahead at addresses uses up nothing
                return None
            if not self._entrance.take(path.removeprefix(ENTRANCE)):
                raise Refused(403, "refused/token")
            begun["session"] = self._new_session()
            return RedirectResponse("/", 303)
        if session is None and not path.startswith("/static/"):
            raise Refused(401, "refused/closed")
        if request.method == "POST" and not _same(request.state.form.get("csrf", ""), request.state.csrf):
            raise Refused(403, "refused/form")
        return None

    def _check_host(self, request: Request) -> None:
        """Keeps out other sites whose name was made to lead to this machine."""
        if self._entrance is None and _host(request.headers.get("host", "")) not in HERE:
            raise Refused(421, "refused/host")

    def _check_origin(self, request: Request) -> None:
        try:
            origin = urlsplit(request.headers.get("origin", ""))
        except ValueError:
            raise Refused(403, "refused/origin") from None
        if origin.scheme not in ("http", "https") or origin.netloc != request.headers.get("host"):
            raise Refused(403, "refused/origin")

    def _session(self, request: Request) -> str | None:
        """The session of the request's cookie, if we gave it."""
        session = request.cookies.get(self._cookie(request), "")
        number, _, mark = session.partition(".")
        return session if _same(mark, self._mark(f"session {number}")) else None

    def _new_session(self) -> str:
        number = secrets.token_hex(16)
        return f"{number}.{self._mark(f'session {number}')}"

    def _mark(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    @staticmethod
    def _cookie(request: Request) -> str:
        """Cookies do not tell ports apart, on which several desks may be."""
        return f"sami_desk_{(request.scope.get('server') or ('', 0))[1]}"


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _host(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, of one name the last.

    Raises:
      Refused: no form, or too much of one.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Refused(415, "refused/type")
    if (length := request.headers.get("content-length", "0")) and (
        not length.isdecimal() or int(length) > LARGEST_BODY
    ):
        raise Refused(413, "refused/size")
    body = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for part in request.stream():
                body += part
                if len(body) > LARGEST_BODY:
                    raise Refused(413, "refused/size")
    except TimeoutError:
        raise Refused(408, "refused/slow") from None
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:  # of UnicodeError too
        raise Refused(400, "refused/type") from None
    return {name: value.replace("\r\n", "\n") for name, value in fields}
