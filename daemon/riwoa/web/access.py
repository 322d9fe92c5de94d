"""Who may ask what: tokens, reading without one, rate limits, and the headers that every answer carries.

Reading is open to whoever comes over loopback or the Unix socket and names this machine as the host: the second
condition keeps out a page of the web that had its own name resolved to 127.0.0.1. A request that a proxy passed on
comes from elsewhere, whatever its address. Everything else needs a token, and to control one always needs one. A token
is sent in a header and never in a cookie, so no page of another site can use it.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from riwoa.web.tokens import CONTROL, Token

MOST_BODY_BYTES = 16_384  # no request needs one at all
_MOST_CLIENTS = 4_096  # whose rates are kept
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class RefusedError(Exception):
    """A request is refused: with which status, why, and after how many seconds another try is worth it."""

    def __init__(self, status: int, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s

    def response(self) -> JSONResponse:
        """The answer."""
        headers = {"www-authenticate": 'Bearer realm="riwoa"'} if self.status == 401 else {}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, round(self.retry_after_s)))
        return JSONResponse({"error": str(self)}, self.status, headers)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests at once, and so many a second after that."""

    burst: float
    per_s: float


READING, CONTROLLING, GUESSING = Rate(240, 60.0), Rate(10, 0.5), Rate(10, 0.2)


class RateLimiter:
    """Counts requests of each client against a rate.

    Args:
        rate: that each client has.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, as of when

    def left(self, client: str) -> float:
        """How many requests the client may make now."""
        left, at_s = self._left.get(client, (self._rate.burst, self._clock()))
        return min(self._rate.burst, left + (self._clock() - at_s) * self._rate.per_s)

    def spend(self, client: str) -> None:
        """Count one request.

        Raises:
            RefusedError: it is one too many.
        """
        left = self.left(client)
        if left < 1.0:
            raise RefusedError(429, "too many requests; wait a moment", (1.0 - left) / self._rate.per_s)
        self._left[client] = (left - 1.0, self._clock())
        self._left.move_to_end(client)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)


class Finder(Protocol):
    """Knows tokens."""

    def find(self, text: str) -> Token | None:
        """The token of a text that a client showed; None where it is not good."""


class Gate:
    """Decides on each request.

    Args:
        finders: who know the tokens that are good, one after another.
        open_reading: whether this machine may read without one.
    """

    def __init__(self, *finders: Finder, open_reading: bool = True) -> None:
        self._finders = finders
        self._open_reading = open_reading
        self._reading, self._controlling, self._guessing = map(RateLimiter, (READING, CONTROLLING, GUESSING))

    def admit(self, request: HTTPConnection, scope: str) -> str:
        """The name of who asks, "" for somebody on this machine.

        Raises:
            RefusedError: no token or a wrong one where one is needed, or too many requests.
        """
        client = request.client.host if request.client is not None else "socket"
        (self._controlling if scope == CONTROL else self._reading).spend(client)
        if scope == CONTROL:
            _require_same_origin(request.headers)
        shown = request.headers.get("authorization")
        if shown is None:
            if scope != CONTROL and self._open_reading and is_local(request):
                return ""
            raise RefusedError(401, "a token is needed; riwoactl token create makes one")
        return self._name_of(shown, scope, client)

    def _name_of(self, shown: str, scope: str, client: str) -> str:
        if self._guessing.left(client) < 1.0:
            raise RefusedError(429, "too many wrong tokens; wait a moment", 1.0 / GUESSING.per_s)
        kind, _, text = shown.partition(" ")
        found = (finder.find(text.strip()) for finder in self._finders if kind.lower() == "bearer")
        token = next(filter(None, found), None)
        if token is None:
            self._guessing.spend(client)
            raise RefusedError(401, "this token is wrong, expired or revoked; riwoactl token list shows which are good")
        if not token.allows(scope):
            raise RefusedError(403, f"the token {token.name!r} may not {scope}; make one with --scope {scope}")
        return token.name


def is_local(request: HTTPConnection) -> bool:
    """Whether a request comes from this machine, by loopback or the Unix socket, and asks for this machine."""
    if any(name in request.headers for name in _PROXY_HEADERS):
        return False
    if request.client is not None and not is_loopback(request.client.host):
        return False
    return _host_name(request.headers.get("host", "")) in _LOOPBACK_NAMES


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _host_name(host: str) -> str:
    """A Host header's name without its port, in lower case."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def _require_same_origin(headers: Headers) -> None:
    """Refuse what a browser says that a page of another site sends; a token would be missing anyway.

    Raises:
        RefusedError: it says so.
    """
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or (
        origin is not None and urlsplit(origin).netloc != headers.get("host", "")
    ):
        raise RefusedError(403, "another site's page may not control this daemon")


class SafeAnswers:
    """ASGI middleware: security headers on every answer, and no body that is larger than any request needs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or len(length) > 9 or int(length) > MOST_BODY_BYTES:
            error = RefusedError(413, f"a request's body may have {MOST_BODY_BYTES} bytes; none needs any")
            await error.response()(scope, receive, send_safely)
            return
        await self._app(scope, receive, send_safely)
