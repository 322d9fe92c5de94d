"""The control socket: one JSON line in, one JSON line out, then the connection closes.

Who may say what. The socket's mode decides who may connect: the daemon's own user and, where the configured group
exists and is the daemon's to give, the members of that group. The kernel says who connected (SO_PEERCRED): root and the
daemon's own user may use every verb, others only those that change nothing, unless the configuration names them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import json
import os
import pwd
import socket
import stat
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from riwoa.errors import ControlError, DaemonUnavailableError, RiwoaError
from riwoa.log import get_logger
from riwoa.paths import connect, socket_address
from riwoa.text import printable
from riwoa_storage.errors import StorageError
from riwoa_storage.events import Asked
from riwoa_storage.fault import reason

Handler = Callable[[], Awaitable[Mapping[str, Any]]]

_FRAME_BYTES = 2**15  # a verb and the longest path, each of its bytes escaped
_PATIENCE_S = 5.0
_NOTING_S = 1.0
_CLIENTS_A_USER = 4  # of those who may only ask
_log = get_logger("control")


class ControlServer:
    """Answers requests on the control socket.

    Args:
        path: of the socket.
        handlers: what each verb does.
        harmless: the verbs that change nothing.
        group: whose members may connect; where there is no such group, or it is not ours to give, only we may.
        operators: the names of users who may use every verb.
        state: the directory served; whoever asks for another one's daemon is told so, and nothing is done.
        note: told of everything asked that changes something, and of every refusal, before the answer is given.
    """

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        *,
        harmless: Collection[str] = (),
        group: str | None = None,
        operators: Callable[[], Collection[str]] = tuple,
        state: str | None = None,
        note: Callable[[Asked], Awaitable[None]] | None = None,
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._harmless = harmless
        self._group = group
        self._operators = operators
        self._state = state
        self._note = note
        self._clients: Counter[int] = Counter()  # connections now, by user
        self._server: asyncio.Server | None = None
        self._bound: tuple[int, int] | None = None  # what lies there since we listen

    async def start(self) -> None:
        """Listen; where that is not possible, log why and go on, for status.json and signals remain."""
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._bind(listener)
            except BaseException:
                listener.close()
                raise
        except OSError as error:
            why = f"cannot listen on {self._path}: {reason(error, self._path.parent)}"
            _log.warning("no_control_socket", reason=f"{why}; set RIWOA_SOCKET to a place for it")
            return
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_FRAME_BYTES)

    @property
    def place(self) -> str | None:
        """The path of the socket; None where the server does not listen."""
        return None if self._server is None else str(self._path)

    def _bind(self, listener: socket.socket) -> None:
        self._clear()
        address, descriptor = socket_address(self._path)
        mask = os.umask(0o177)
        try:
            listener.bind(address)
            self._share(address)
            self._bound = _identity(self._path)
        finally:
            os.umask(mask)
            if descriptor is not None:
                os.close(descriptor)

    def _clear(self) -> None:
        """Remove a dead daemon's socket; the place may hold a living one's, or another file, which stay.

        Raises:
            OSError: something else lies there.
        """
        if not os.path.lexists(self._path):
            return
        if not stat.S_ISSOCK(os.lstat(self._path).st_mode):
            raise FileExistsError(errno.EEXIST, "something lies there that is no socket")
        try:
            connect(self._path, 1.0).close()
        except (ConnectionRefusedError, FileNotFoundError):
            self._path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # it lives: so many wait for it that no more may, or it is not ours to ask
        raise OSError(errno.EADDRINUSE, "another daemon listens there")

    def _share(self, address: str) -> None:
        """Give the socket to the configured group, if there is such a group and it is ours to give."""
        try:
            group_id = grp.getgrnam(self._group or "").gr_gid
            if os.stat(address).st_gid != group_id:  # under systemd it is ours already, and chown is forbidden there
                os.chown(address, -1, group_id)
        except (KeyError, OSError):
            return
        os.chmod(address, 0o660)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            if self._bound == _identity(self._path):
                with contextlib.suppress(OSError):
                    self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            user_id = _peer(writer)
        except OSError:  # gone already
            writer.close()
            return
        if not self._is_owner(user_id) and self._clients[user_id] >= _CLIENTS_A_USER:
            writer.close()  # unheard: whoever holds these places is gone in seconds
            return
        self._clients[user_id] += 1
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await self._answer(await reader.readline(), user_id)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, OSError, ValueError) as error:  # ValueError: a line beyond the limit
            _log.debug("client_dropped", reason=str(error))
        finally:
            self._clients[user_id] -= 1
            if not self._clients[user_id]:
                del self._clients[user_id]
            writer.close()

    async def _answer(self, line: bytes, user_id: int) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
            verb = request["verb"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"ok": False, "error": 'expected one JSON line such as {"verb": "status"}', "exit_code": 76}
        if request.get("state", self._state) != self._state:  # a client that names none is an older one
            error = f"this daemon serves {self._state}"
            code = DaemonUnavailableError.exit_code
            return {"ok": False, "error": error, "exit_code": code, "state": self._state}
        handler = self._handlers.get(verb) if isinstance(verb, str) else None
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return {"ok": False, "error": f"unknown verb; this daemon knows {known}", "exit_code": 76}
        by = request.get("by")  # for whom a client of ours asks: the page tells whose token it was shown
        asked = Asked(verb=verb, user=_name(user_id), by=printable(by, 80) if by else None)
        if not self._may(user_id, verb):
            _log.warning("refused", verb=verb, user=asked.user)
            await self._noted(replace(asked, answer="refused"))
            error = f"{asked.user} may not {verb} this daemon; ask root, or be named in control.operators"
            return {"ok": False, "error": error, "exit_code": ControlError.exit_code}
        if verb in self._harmless:
            return await self._handled(handler)
        _log.info("asked", verb=verb, user=asked.user, **({"by": asked.by} if asked.by else {}))
        answer = await self._handled(handler)
        await self._noted(replace(asked, answer=str(answer.get("message") or answer.get("error") or "")))
        return answer

    @staticmethod
    async def _handled(handler: Handler) -> Mapping[str, Any]:
        try:
            return {"ok": True, **await handler()}
        except (RiwoaError, StorageError) as error:
            return {"ok": False, "error": str(error), "exit_code": error.exit_code}

    async def _noted(self, asked: Asked) -> None:
        """Have it noted; where that fails, or takes long, the log alone knows of it."""
        if self._note is None:
            return
        try:
            await asyncio.wait_for(self._note(asked), _NOTING_S)
        except (TimeoutError, StorageError, OSError) as error:
            _log.warning("not_noted", verb=asked.verb, reason=str(error))

    def _may(self, user_id: int, verb: str) -> bool:
        return verb in self._harmless or self._is_owner(user_id) or _name(user_id) in self._operators()

    @staticmethod
    def _is_owner(user_id: int) -> bool:
        """Whether it is root or the daemon's own user, whom nobody else's connections may keep out."""
        return user_id in (0, os.geteuid())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user id of the client, from the kernel."""
    credentials = struct.Struct("3i")  # process, user, group
    connection = writer.get_extra_info("socket")
    _, user_id, _ = credentials.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))
    return int(user_id)


def _name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"user {user_id}"
