"""One server that speaks the OpenAI protocol over HTTP, and is not trusted: every answer is bounded in size and time.

No redirect is followed, so that the key goes to nobody else, and the key is taken out of whatever the server says.
httpx2 is imported with the first exchange: a daemon without a server never loads it.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from riwoa.config.server import ServerSettings
from riwoa.errors import CognitionError
from riwoa.parsing import parse_json, read_once
from riwoa.text import printable

if TYPE_CHECKING:
    import httpx2

Trouble = Literal["passing", "strange", "refused"]

_MOST_BYTES = 4 * 2**20  # of an answer: hundreds of texts with their reasoning
_MOST_KEY_BYTES = 16_384
_LEAST_SECRET = 8  # characters; servers on this machine are given "none" or "ollama", which may stand in any text
_MOST_SAID = 200  # characters of what the server says of a failure
_CONNECT_S = 10.0
_PASSING = (408, 425, 429)  # and what is wrong with the server itself
_NEVER_PASSING = (501, 505)
_INSTALL = "pip install 'riwoa[http]'"


class ServerError(CognitionError):
    """A server did not answer as it should.

    Args:
        message: what is wrong, and what to do next.
        trouble: "passing": another try may go better; "strange": this answer is useless; "refused": the server takes
            no request as it is sent, so that no other is worth sending.
        status: of HTTP, where there was one.
        wait_s: what the server asked to wait.
        late: patience ended, while the server may have been writing.
    """

    exit_code = 69

    def __init__(
        self,
        message: str,
        trouble: Trouble,
        *,
        status: int | None = None,
        wait_s: float | None = None,
        late: bool = False,
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.status = status
        self.wait_s = wait_s
        self.late = late


class Endpoint:
    """Exchanges JSON with a server.

    Args:
        settings: read anew before each exchange.
    """

    def __init__(self, settings: Callable[[], ServerSettings]) -> None:
        self._settings = settings
        self._client: httpx2.AsyncClient | None = None

    async def get(self, path: str, timeout_s: float) -> Any:
        """What lies at a path below the base URL.

        Raises:
            ServerError: there is no such answer.
        """
        return await self._exchange("GET", path, None, timeout_s)

    async def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> Any:
        """The answer to a JSON object.

        Raises:
            ServerError: there is no such answer.
        """
        return await self._exchange("POST", path, body, timeout_s)

    async def close(self) -> None:
        """Give back the connections; the next exchange makes others. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> Any:
        settings = self._settings()
        key = await asyncio.to_thread(read_key, settings)
        client = await self._connected()
        import httpx2  # it is loaded by now

        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        url = f"{settings.url}{path}"
        try:
            async with asyncio.timeout(timeout_s), client.stream(method, url, json=body, headers=headers) as answer:
                content = await _bounded(answer)
        except TimeoutError:
            raise ServerError(f"no answer within {timeout_s:.3g} s", "passing", late=True) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise _without(key, _unreachable(error, settings)) from None
        try:
            return _without_key(_read(answer, content, settings, has_key=key is not None), key)
        except ServerError as error:
            raise _without(key, error) from None

    async def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            # The import, and reading the certificates that are trusted, take tenths of a second.
            self._client = await asyncio.to_thread(_client)
        return self._client


def _client() -> httpx2.AsyncClient:
    try:
        import httpx2
    except ImportError:
        raise ServerError(f"a model on a server needs httpx2, which is not here: {_INSTALL}", "refused") from None
    # A server writes nothing until its text is whole: who waits is bounded by the exchange's own patience.
    timeout = httpx2.Timeout(None, connect=_CONNECT_S)
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "riwoa"}
    return httpx2.AsyncClient(timeout=timeout, headers=headers, follow_redirects=False)


def read_key(settings: ServerSettings) -> str | None:
    """The server's key; None where none is configured.

    Raises:
        ServerError: there is none where it is said to be; the message never holds it.
    """
    if settings.key_env is not None:
        key, where = os.environ.get(settings.key_env, ""), f"the environment variable {settings.key_env}"
    elif settings.key_file is not None:
        where = settings.key_file
        try:
            key = read_once(Path(where).expanduser(), _MOST_KEY_BYTES)[0].decode("ascii", "replace").partition("\n")[0]
        except OSError as error:
            problem = f"cognition.http.key_file: {where} cannot be read ({error.strerror})"
            raise ServerError(problem, "refused") from None
        except ValueError as error:
            raise ServerError(f"cognition.http.key_file: {where} {error}", "refused") from None
    else:
        return None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        name = "key_env" if settings.key_env is not None else "key_file"
        raise ServerError(f"cognition.http.{name}: {where} holds no key in its first line", "refused")
    return key


async def _bounded(answer: httpx2.Response) -> bytes:
    """The body of an answer, up to its bounds.

    Raises:
        ServerError: it is longer, or packed, which nobody asked for.
    """
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise ServerError("the server packs its answer, which was not asked for", "strange")
    content = bytearray()
    async for piece in answer.aiter_raw():
        content += piece
        if len(content) > _MOST_BYTES:
            raise ServerError(f"the server's answer is longer than {_MOST_BYTES >> 20} MiB", "strange")
    return bytes(content)


def _read(answer: httpx2.Response, content: bytes, settings: ServerSettings, *, has_key: bool) -> Any:
    """The JSON value of an answer.

    Raises:
        ServerError: it is a refusal, or no JSON.
    """
    status, kind = answer.status_code, answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if status >= 400:
        raise _refusal(status, _said(content, kind), answer.headers, settings, has_key=has_key)
    if status >= 300:
        where = urlsplit(answer.headers.get("location", "")).netloc or "another address"
        raise ServerError(
            f"the server sends elsewhere ({status}, to {printable(where, 100)}), which is not followed; "
            "put the final address into cognition.http.url",
            "refused",
            status=status,
        )
    if "html" in kind:
        raise ServerError(
            f"{settings.url} answers with a web page; the base URL of an API mostly ends in /v1", "refused"
        )
    if kind and "json" not in kind:
        raise ServerError(f"the server answers with {printable(kind, 60)} where JSON should be", "strange")
    try:
        return parse_json(content, _MOST_BYTES)
    except ValueError as error:
        raise ServerError(f"the server's answer is no JSON ({printable(error, 100)})", "strange") from None


def _refusal(
    status: int, said: str, headers: Mapping[str, str], settings: ServerSettings, *, has_key: bool
) -> ServerError:
    """What an HTTP status of failure means, and what to do."""
    words = f" ({status}{f': {said}' if said else ''})"
    if status in (401, 403):
        mend = (
            "put a valid one into cognition.http.key_file"
            if has_key
            else "name a file that holds one in cognition.http.key_file"
        )
        return ServerError(f"the server {'refuses the key' if has_key else 'wants a key'}{words}; {mend}", "refused")
    if status == 404:
        return ServerError(
            f"{settings.url} has no such model or address{words}; a base URL mostly ends in /v1",
            "refused",
            status=status,
        )
    if status in _PASSING or (status >= 500 and status not in _NEVER_PASSING):
        what = "is asked too often" if status == 429 else "fails"
        return ServerError(f"the server {what}{words}", "passing", status=status, wait_s=_wait_s(headers))
    return ServerError(f"the server refuses the request{words}", "refused", status=status)


def _said(content: bytes, kind: str) -> str:
    """What the server says of a failure, in a line."""
    if "json" not in kind:
        return "" if "html" in kind else printable(content[:_MOST_SAID].decode(errors="replace").strip(), _MOST_SAID)
    try:
        found = parse_json(content, _MOST_BYTES)
    except ValueError:
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return printable(found if isinstance(found, str) else json.dumps(found), _MOST_SAID)


def _wait_s(headers: Mapping[str, str]) -> float | None:
    """What ``Retry-After`` says, in seconds or as a date; None where it says nothing."""
    said = headers.get("retry-after", "").strip()
    if said.isdecimal() and len(said) < 10:
        return float(said)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _unreachable(error: Exception, settings: ServerSettings) -> ServerError:
    """Why nothing was exchanged."""
    words = printable(error, _MOST_SAID) or type(error).__name__
    if "CERTIFICATE" in words.upper() or "SSL" in words.upper():
        mend = "SSL_CERT_FILE names the certificate of an authority of your own"
        return ServerError(f"no safe connection to {settings.url} ({words}); {mend}", "refused")
    return ServerError(f"{settings.url} cannot be reached ({words}); is the server running?", "passing")


def _without(key: str | None, error: ServerError) -> ServerError:
    """The error without the key, which a server may repeat."""
    return ServerError(_without_key(str(error), key), error.trouble, status=error.status, wait_s=error.wait_s)


def _without_key(value: Any, key: str | None) -> Any:
    """A JSON value in which the key stands nowhere."""
    if key is None or len(key) < _LEAST_SECRET:
        return value
    if isinstance(value, str):
        return value.replace(key, "[key]")
    if isinstance(value, list):
        return [_without_key(item, key) for item in value]
    if isinstance(value, dict):
        return {_without_key(name, key): _without_key(item, key) for name, item in value.items()}
    return value
