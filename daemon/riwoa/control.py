"""The control socket: one JSON line in, one JSON line out, then the connection closes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from riwoa.errors import RiwoaError, StateDirectoryError
from riwoa.log import get_logger
from riwoa.paths import socket_address

Handler = Callable[[], Awaitable[Mapping[str, Any]]]

_FRAME_BYTES = 4096
_PATIENCE_S = 5.0
_CLIENTS = 16
_log = get_logger("control")


class ControlServer:
    """Serves verbs; what a verb does is given at construction. The socket is mode 0600 until a group is configured."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._places = asyncio.Semaphore(_CLIENTS)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. The state directory's lock is held, so a socket that lies there is a dead daemon's.

        Raises:
            StateDirectoryError: the socket cannot be created.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind(listener)
        except OSError as error:
            listener.close()
            raise StateDirectoryError(f"cannot listen on {self._path} ({error}); check the directory") from None
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_FRAME_BYTES)

    def _bind(self, listener: socket.socket) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        address, descriptor = socket_address(self._path)
        mask = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(mask)
            if descriptor is not None:
                os.close(descriptor)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._places, asyncio.timeout(_PATIENCE_S):
                answer = await self._answer(await reader.readline())
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, OSError, ValueError) as error:  # ValueError: a line beyond the limit
            _log.debug("client_dropped", reason=str(error))
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
            verb = request["verb"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"ok": False, "error": 'expected one JSON line such as {"verb": "status"}', "exit_code": 76}
        handler = self._handlers.get(verb) if isinstance(verb, str) else None
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return {"ok": False, "error": f"unknown verb; this daemon knows {known}", "exit_code": 76}
        try:
            return {"ok": True, **await handler()}
        except RiwoaError as error:
            return {"ok": False, "error": str(error), "exit_code": error.exit_code}
