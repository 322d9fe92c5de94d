import json
from pathlib import Path

import pytest

from riwoa.ctl import main

from .support import daemon

_VERBS = ["pause", "resume", "stop", "reload"]


@pytest.mark.parametrize("verb", _VERBS)
def test_the_daemon_is_told_and_its_answer_printed(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon(tmp_path, {"ok": True, "message": "as you wish"}) as requests:
        assert main([verb, "--state", str(tmp_path)]) == 0
    assert requests == [{"verb": verb, "state": str(tmp_path)}]
    assert capsys.readouterr().out == "as you wish\n"


def test_a_partial_reload_is_a_request_of_its_own(tmp_path: Path) -> None:
    with daemon(tmp_path, {"ok": True}) as requests:
        assert main(["reload", "--partial", "--state", str(tmp_path)]) == 0
        assert main(["pause", "--partial", "--state", str(tmp_path)]) == 64
    assert [request["verb"] for request in requests] == ["reload --partial"]


@pytest.mark.parametrize("verb", _VERBS)
def test_without_a_daemon_it_exits_69_and_says_how_to_start_one(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--state", str(tmp_path)]) == 69
    assert "start one with `riwoad" in capsys.readouterr().err


def test_a_socket_of_a_dead_daemon_is_no_daemon(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    assert main(["pause", "--state", str(tmp_path)]) == 69


def test_a_refusal_exits_with_the_code_the_daemon_gave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal = {"ok": False, "error": "oracle.workers = 0, should be positive", "exit_code": 78}
    with daemon(tmp_path, refusal):
        assert main(["reload", "--json", "--state", str(tmp_path)]) == 78
    assert json.loads(capsys.readouterr().out) == {"error": refusal["error"], "exit_code": 78}


def test_a_path_longer_than_a_socket_address_is_reached(tmp_path: Path) -> None:
    state = tmp_path / ("long" * 30)
    state.mkdir()
    (tmp_path / "s").symlink_to(state)
    with daemon(tmp_path / "s", {"ok": True}):
        assert main(["pause", "--state", str(state)]) == 0
