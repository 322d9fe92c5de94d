"""``riwoactl web``: the page, in a process of its own beside the daemon."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.ask import ask
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.status import collect
from riwoa.errors import UsageError
from riwoa.paths import StatePaths, client_state
from riwoa.service.status_object import StatusObject

_TIMEOUT_S = 15.0
_NEEDED = ("starlette", "uvicorn", "prometheus_client", "jwt")
_DESCRIPTION = """Serve a page that shows the search and its journal, and controls it, until interrupted. Whoever is on
this machine may read; to control, and to read from elsewhere, a token is needed: `riwoactl token create`. The daemon
need not run."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Serve the page.

    Raises:
        UsageError: a library of the extra is missing, or the address cannot be had.
    """
    parser = Parser(verb, description=_DESCRIPTION)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--listen", type=_address, metavar="HOST:PORT", help="where to listen (default: 127.0.0.1:8321)")
    where.add_argument("--socket", type=Path, metavar="PATH", help="listen on a Unix socket instead")
    parser.add_argument("--require-token", action="store_true", help="also who is on this machine needs one to read")
    parser.add_argument("--jwt-key", type=Path, metavar="FILE", help="accept JSON Web Tokens that this key signed")
    parser.add_argument("--jwt-audience", default="riwoa", metavar="NAME", help="that they must name (default: riwoa)")
    given = parser.parse_args(arguments)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(f"the page needs {', '.join(missing)}; install it with: pip install 'riwoa[web]'")
    from riwoa.web.jwt import JwtVerifier
    from riwoa.web.server import Place, listener, serve

    jwt = None if given.jwt_key is None else JwtVerifier.read(given.jwt_key, given.jwt_audience)
    paths = client_state(options.state)
    wanted = Place(path=given.socket) if given.socket is not None else Place(*(given.listen or ()))
    with listener(wanted) as bound:
        place = wanted.as_bound(bound)
        emit(options, {"page": str(place), "state_directory": paths.directory}, _words(place, paths))
        sys.stdout.flush()  # whoever started it waits for these words
        try:
            serve(paths, SocketDaemon(paths), bound, open_reading=not given.require_token, jwt=jwt)
        finally:
            if given.socket is not None:
                given.socket.unlink(missing_ok=True)
    return 0


class SocketDaemon:
    """The daemon of a state directory, over its control socket; its status also where it does not run."""

    def __init__(self, paths: StatePaths) -> None:
        self._paths = paths

    def status(self) -> StatusObject:
        """The status as ``riwoactl status --json`` prints it."""
        return collect(self._paths)

    def ask(self, verb: str, by: str) -> Mapping[str, Any]:
        """Have the daemon carry out a verb.

        Raises:
            RiwoaError: it does not run, does not answer, or refuses.
        """
        return ask(self._paths, verb, _TIMEOUT_S, by=f"token {by}")


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not int(port) < 65536:
        raise argparse.ArgumentTypeError(f"needs HOST:PORT such as 127.0.0.1:8321, not {text!r}")
    return host.strip("[]"), int(port)


def _words(place: Any, paths: StatePaths) -> str:
    away = "" if place.is_local else "\nWhat is sent is not encrypted: put a proxy with TLS before it."
    return f"riwoa's page of {paths.directory} is at {place}; Ctrl-C ends it.{away}"
