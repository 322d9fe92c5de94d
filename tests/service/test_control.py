from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import pwd
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riwoa.ctl.ask import SilentError
from riwoa.ctl.ask import ask as riwoactl_ask
from riwoa.errors import DaemonUnavailableError
from riwoa.paths import StatePaths, connect
from riwoa.service.control import ControlServer
from riwoa_storage.events import Asked
from tests.support.fuzz import examples


async def hello() -> Mapping[str, Any]:
    return {"message": "hello"}


async def refuse() -> Mapping[str, Any]:
    raise DaemonUnavailableError("not now")


@pytest.fixture(params=["control.sock", "d" * 60 + "/" + "e" * 60 + "/control.sock"], ids=["short", "beyond-107-bytes"])
async def path(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Path]:
    place = tmp_path / request.param
    place.parent.mkdir(parents=True, exist_ok=True)
    server = ControlServer(place, {"hello": hello, "refuse": refuse}, harmless={"hello"})
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


async def test_what_is_asked_is_logged_with_whom_it_is_for_on_one_line(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await ask(path, json.dumps({"verb": "refuse", "by": "token eva\nforged"}).encode() + b"\n")
    await ask(path, b'{"verb": "hello"}\n')
    (line,) = capsys.readouterr().out.splitlines()
    assert "verb=refuse" in line
    assert "token eva" in line


async def test_what_changes_something_is_noted_with_its_answer_and_a_note_that_fails_costs_no_answer(
    tmp_path: Path,
) -> None:
    noted: list[Asked] = []

    async def note(asked: Asked) -> None:
        noted.append(asked)
        if asked.by == "token full":
            raise OSError("the disk is full")

    place = tmp_path / "s"
    server = ControlServer(place, {"hello": hello, "refuse": refuse, "go": hello}, harmless={"hello"}, note=note)
    await server.start()
    await ask(place, b'{"verb": "hello"}\n')
    assert (await ask(place, b'{"verb": "go", "by": "token full"}\n'))["ok"]
    assert (await ask(place, b'{"verb": "refuse"}\n'))["error"] == "not now"
    await server.close()
    assert [(a.verb, a.by, a.answer) for a in noted] == [("go", "token full", "hello"), ("refuse", None, "not now")]
    assert {a.user for a in noted} == {pwd.getpwuid(os.getuid()).pw_name}


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
    monkeypatch.setattr("riwoa.service.control._PATIENCE_S", 0.3)
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


async def test_whoever_asks_for_another_states_daemon_is_told_whose_this_is(tmp_path: Path) -> None:
    done: list[str] = []

    async def stop() -> Mapping[str, Any]:
        done.append("stop")
        return {}

    server = ControlServer(tmp_path / "control.sock", {"stop": stop}, state=str(tmp_path))
    await server.start()
    refused = await ask(tmp_path / "control.sock", b'{"verb": "stop", "state": "/elsewhere"}\n')
    assert (refused["ok"], refused["exit_code"], refused["state"]) == (False, 69, str(tmp_path))
    assert not done
    for named in ({}, {"state": str(tmp_path)}):  # an older riwoactl names none
        assert (await ask(tmp_path / "control.sock", json.dumps({"verb": "stop", **named}).encode() + b"\n"))["ok"]
    assert done == ["stop", "stop"]
    await server.close()


async def test_another_path_to_the_same_state_is_no_other_state(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to("state")
    served = tmp_path / "link"  # stands for a bind mount, which a real path keeps too
    server = ControlServer(tmp_path / "state/control.sock", {"status": hello}, state=str(served))
    await server.start()
    answer = await asyncio.to_thread(riwoactl_ask, StatePaths(tmp_path / "state"), "status", 5.0)
    assert answer["message"] == "hello"
    await server.close()


async def test_the_longest_path_is_heard(tmp_path: Path) -> None:
    state = "/" + "\udcff" * 4094
    server = ControlServer(tmp_path / "s", {"hello": hello}, state=state)
    await server.start()
    assert (await ask(tmp_path / "s", json.dumps({"verb": "hello", "state": state}).encode() + b"\n"))["ok"]
    await server.close()


async def test_a_socket_that_too_many_wait_for_is_a_live_daemons(tmp_path: Path) -> None:
    place = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as waiting:
        busy.bind(str(place))
        busy.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting.enter_context(connect(place, 5.0))
        with pytest.raises(SilentError, match="does not answer"):
            riwoactl_ask(StatePaths(tmp_path), "hello", 1.0)
        server = ControlServer(place, {"hello": hello})
        await server.start()
        assert server.place is None
        await server.close()
        assert place.is_socket()


# -- who may say what ------------------------------------------------------------------------------------------------


def exchange_as(user_id: int, group_id: int, path: Path, frame: bytes) -> bytes:
    """What this user is answered; b"refused" where it may not connect. A forked child: identities are a process's."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(group_id, group_id, group_id)
            os.setresuid(user_id, user_id, user_id)
            os.write(write, exchange(path, frame))
        except PermissionError:
            os.write(write, b"refused")
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as stream:
        return stream.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")
async def test_the_group_may_look_operators_may_act_and_strangers_may_not_connect() -> None:
    nobody, group = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("games")
    operators: list[str] = []
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        os.chmod(folder, 0o711)
        place = Path(folder, "control.sock")
        handlers = {"hello": hello, "act": hello}
        server = ControlServer(
            place, handlers, harmless={"hello"}, group=group.gr_name, operators=lambda: tuple(operators)
        )
        await server.start()
        assert stat.S_IMODE(place.stat().st_mode) == 0o660

        async def answer(verb: str, user_id: int, group_id: int) -> bytes:
            frame = json.dumps({"verb": verb}).encode() + b"\n"
            return await asyncio.to_thread(exchange_as, user_id, group_id, place, frame)

        assert json.loads(await answer("hello", nobody, group.gr_gid))["ok"]
        refused = json.loads(await answer("act", nobody, group.gr_gid))
        assert (refused["ok"], refused["exit_code"]) == (False, 77)
        assert "nobody may not act this daemon" in refused["error"]
        operators.append("nobody")
        assert json.loads(await answer("act", nobody, group.gr_gid))["ok"]
        assert json.loads(await answer("act", 0, 0))["ok"]
        assert await answer("hello", nobody, 65_000) == b"refused"
        await server.close()


async def test_the_connections_of_others_are_few_and_keep_no_master_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riwoa.service.control._peer", lambda writer: 4242)
    silent = [connect(path, 5.0) for _ in range(30)]
    await asyncio.sleep(0.3)
    with contextlib.suppress(ConnectionError):  # one too many: closed unheard
        assert await asyncio.to_thread(exchange, path, b'{"verb": "hello"}\n') == b""
    monkeypatch.setattr("riwoa.service.control._peer", lambda writer: 0)
    assert (await ask(path, b'{"verb": "hello"}\n'))["ok"]
    for client in silent:
        client.close()
    await asyncio.sleep(0.3)


async def test_without_the_group_the_socket_is_the_daemons_alone(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "s", {"hello": hello}, group="no-such-group")
    await server.start()
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    await server.close()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("verb"), inner, max_size=4)
    ),
    max_leaves=12,
)
_FRAMES = st.binary(max_size=300) | _JSON.map(lambda value: json.dumps(value).encode())


@pytest.mark.timeout(1800)
def test_no_frame_takes_the_server_down(tmp_path: Path) -> None:
    async def scenario(frame: bytes, *, ended: bool) -> None:
        server = ControlServer(place, {"hello": hello})
        await server.start()
        await asyncio.to_thread(exchange, place, frame + b"\n" * ended)
        assert (await ask(place, b'{"verb": "hello"}\n'))["ok"]
        await server.close()

    @settings(max_examples=examples(50), deadline=None)
    @given(_FRAMES, st.booleans())
    def fuzz(frame: bytes, ended: bool) -> None:
        asyncio.run(scenario(frame, ended=ended))

    place = tmp_path / "s"
    fuzz()
