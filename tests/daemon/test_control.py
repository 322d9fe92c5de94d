from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riwoa.control import ControlServer
from riwoa.errors import DaemonUnavailableError
from riwoa.paths import connect


async def hello() -> Mapping[str, Any]:
    return {"message": "hello"}


async def refuse() -> Mapping[str, Any]:
    raise DaemonUnavailableError("not now")


@pytest.fixture(params=["control.sock", "d" * 60 + "/" + "e" * 60 + "/control.sock"], ids=["short", "beyond-107-bytes"])
async def path(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Path]:
    place = tmp_path / request.param
    place.parent.mkdir(parents=True, exist_ok=True)
    server = ControlServer(place, {"hello": hello, "refuse": refuse})
    await server.start()
    yield place
    await server.close()
    assert not place.exists()


def exchange(path: Path, frame: bytes) -> bytes:
    with connect(path, 5.0) as client:
        client.sendall(frame)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            return stream.read()


async def ask(path: Path, frame: bytes) -> Any:
    return json.loads(await asyncio.to_thread(exchange, path, frame))


async def test_a_verb_is_answered_with_one_line_of_json(path: Path) -> None:
    assert await ask(path, b'{"verb": "hello"}\n') == {"ok": True, "message": "hello"}


async def test_a_refusal_carries_its_message_and_exit_code(path: Path) -> None:
    assert await ask(path, b'{"verb": "refuse"}\n') == {"ok": False, "error": "not now", "exit_code": 69}


@pytest.mark.parametrize(
    "frame", [b"\n", b"[]\n", b"{}\n", b'{"verb": 1}\n', b'{"verb": "nope"}\n', b"\xff\xfe\n", b"[" * 3000 + b"\n"]
)
async def test_nonsense_is_answered_with_what_to_send_instead(path: Path, frame: bytes) -> None:
    answer = await ask(path, frame)
    assert answer["ok"] is False
    assert answer["exit_code"] == 76


async def test_only_the_owner_may_open_the_socket(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_frame_beyond_the_limit_ends_the_connection_and_not_the_server(path: Path) -> None:
    try:
        assert await asyncio.to_thread(exchange, path, b"x" * 2**20) == b""
    except OSError:
        pass  # the server may close before everything is sent
    assert (await ask(path, b'{"verb": "hello"}\n'))["ok"]


async def test_many_silent_clients_are_dropped_and_others_served_after(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riwoa.control._PATIENCE_S", 0.3)
    silent = [connect(path, 5.0) for _ in range(40)]
    await asyncio.sleep(1.5)
    assert (await ask(path, b'{"verb": "hello"}\n'))["ok"]
    for client in silent:
        client.close()


async def test_a_dead_daemons_socket_is_taken_over(tmp_path: Path) -> None:
    place = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    server = ControlServer(place, {"hello": hello})
    await server.start()
    assert (await ask(place, b'{"verb": "hello"}\n'))["ok"]
    await server.close()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300))
def test_no_frame_takes_the_server_down(tmp_path_factory: pytest.TempPathFactory, frame: bytes) -> None:
    async def scenario() -> None:
        place = tmp_path_factory.mktemp("control") / "s"
        server = ControlServer(place, {"hello": hello})
        await server.start()
        await asyncio.to_thread(exchange, place, frame)
        assert (await ask(place, b'{"verb": "hello"}\n'))["ok"]
        await server.close()

    asyncio.run(scenario())
