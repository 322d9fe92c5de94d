from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from riwoa.errors import StateDirectoryError, UsageError
from riwoa.web import server
from riwoa.web.server import HastyProtocol, Place, listener


async def test_half_a_request_does_not_hold_its_connection_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("no request ever came whole")

    monkeypatch.setattr(server, "_REQUEST_S", 0.05)
    config = uvicorn.Config(app, lifespan="off", ws="none")
    config.load()
    loop = asyncio.get_running_loop()

    def protocol() -> HastyProtocol:
        return HastyProtocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)

    async with await loop.create_server(protocol, "127.0.0.1", 0) as listening:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: loc")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


def test_a_unix_socket_is_its_user_s_and_group_s_and_takes_a_dead_one_s_place(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    listener(Place(path=path)).close()
    with listener(Place(path=path)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        with pytest.raises(UsageError, match="somebody listens"):
            listener(Place(path=path))
    path.unlink()
    path.write_text("a file of the user's")
    with pytest.raises(StateDirectoryError):
        listener(Place(path=path))
    assert path.read_text()


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)])
def test_a_place_knows_whether_others_reach_it(host: str, local: bool) -> None:
    assert Place(host, 80).is_local is local
    assert str(Place("::1", 80)) == "http://[::1]:80/"


def test_a_taken_address_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="--listen"):
            listener(Place(port=taken.getsockname()[1]))
