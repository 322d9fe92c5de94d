"""Serves the page on an address or a Unix socket, until it is told to end."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from riwoa.errors import UsageError
from riwoa.files.ownership import unwritable
from riwoa.paths import StatePaths
from riwoa.web.access import Finder, Gate, is_loopback
from riwoa.web.application import application
from riwoa.web.journal import Journal
from riwoa.web.jwt import JwtVerifier
from riwoa.web.observer import Daemon, Observer
from riwoa.web.tokens import TokenStore

_NICENESS = 10  # the search comes first
_CONNECTIONS = 1_200
_KEEP_ALIVE_S = 15
_REQUEST_S = 15.0  # for a request to come whole
_END_S = 3
_MOST_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page listens: an address and a port, or the path of a Unix socket."""

    host: str = "127.0.0.1"
    port: int = 8321
    path: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether nobody from elsewhere can reach it."""
        return self.path is not None or is_loopback(self.host)

    def as_bound(self, bound: socket.socket) -> Place:
        """The same with the port that port 0 came to."""
        return self if self.path is not None else replace(self, port=bound.getsockname()[1])

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return str(self.path) if self.path is not None else f"http://{host}:{self.port}/"


def listener(place: Place) -> socket.socket:
    """A socket that listens: who connects is answered as soon as the page is served.

    Raises:
        UsageError: the address is none of this machine's, or somebody listens there.
        StateDirectoryError: the socket's directory cannot be written.
    """
    if place.path is not None:
        return _unix_listener(place.path)
    found = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        if found is not None:
            found.close()
        raise UsageError(f"cannot listen on {place} ({error.strerror}); choose another with --listen") from None
    return found


def _unix_listener(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        raise UsageError(f"--socket: a socket's path has at most {_MOST_PATH_BYTES} bytes; choose a shorter one")
    if path.is_socket():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            if client.connect_ex(str(path)) == 0:
                raise UsageError(f"somebody listens on {path}; choose another with --socket")
        path.unlink()  # a dead page's
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)  # its user and group
    try:
        found.bind(str(path))
        found.listen()
    except OSError as error:
        found.close()
        raise unwritable(path, error, "choose another with --socket") from None
    finally:
        os.umask(mask)
    return found


class HastyProtocol(H11Protocol):
    """Closes a connection on which no whole request came in time: uvicorn would wait for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self.loop.call_later(_REQUEST_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()


def _allow_connections() -> None:
    """Have as many files open as there may be connections, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _CONNECTIONS
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def serve(
    paths: StatePaths, daemon: Daemon, bound: socket.socket, *, open_reading: bool, jwt: JwtVerifier | None = None
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        paths: of the state directory.
        daemon: that works there.
        bound: where to listen.
        open_reading: whether this machine may read without a token.
        jwt: knows tokens of another service.
    """
    os.nice(_NICENESS)
    _allow_connections()
    journal = Journal(paths.journal)
    finders: list[Finder] = [TokenStore(paths), *([] if jwt is None else [jwt])]
    app = application(Gate(*finders, open_reading=open_reading), Observer(daemon, journal), journal)
    config = uvicorn.Config(
        app,
        http=HastyProtocol,
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,  # who came by a proxy needs a token, whatever the proxy says of him
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_END_S,
        h11_max_incomplete_event_size=16_384,
        ws="none",
    )
    # The server hands a signal that ended it on to whoever had it before; that it has ended is all there is to do.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    uvicorn.Server(config).run(sockets=[bound])
