from __future__ import annotations

import json
import time
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from riwoa.ctl import main
from riwoa.paths import StatePaths
from riwoa.web.tokens import TokenStore


def test_a_token_is_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--state", str(tmp_path), "--json"]
    assert main(["token", "create", "eva", "--scope", "control", "--expires", "2h", *common]) == 0
    made = json.loads(capsys.readouterr().out)
    token = TokenStore(StatePaths(tmp_path)).find(made["token"])
    assert token is not None
    assert token.allows("control")
    assert token.allows("read")
    assert token.expires_unix_s == pytest.approx(time.time() + 7200, abs=60)
    assert main(["token", "create", "eva", *common]) == 64
    capsys.readouterr()
    assert main(["token", "list", "--state", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "eva" in out
    assert "read and control" in out
    assert made["token"].rpartition("-")[2] not in out
    assert main(["token", "revoke", "eva", *common]) == 0
    assert TokenStore(StatePaths(tmp_path)).find(made["token"]) is None
    capsys.readouterr()
    assert main(["token", "revoke", "eva", "--state", str(tmp_path)]) == 66
    assert "there are: none" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["create"], ["create", "a/b"], ["create", "x", "--expires", "soon"], ["mkae"]])
def test_a_wrong_token_command_says_what_is_meant(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", *wrong, "--state", str(tmp_path)]) == 64
    assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_token_file_opens_nothing_and_hides_no_other(tmp_path: Path) -> None:
    store = TokenStore(StatePaths(tmp_path))
    _, text = store.create("eva", ("read",), None)
    (tmp_path / "web-tokens" / "00000000.json").write_text('{"name": "x"}')
    assert [token.name for token in store.tokens()] == ["eva"]
    assert store.find(text) is not None
    assert store.find(f"riwoa-00000000-{'x' * 43}") is None


def test_without_the_extra_the_page_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = util.find_spec

    def spec(name: str, package: str | None = None) -> Any:
        return None if name == "uvicorn" else found(name, package)

    monkeypatch.setattr("riwoa.ctl.web.find_spec", spec)
    assert main(["web", "--state", str(tmp_path)]) == 64
    assert "pip install 'riwoa[web]'" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["8321", "localhost:", ":80", "localhost:99999", "203.0.113.1:80"])
def test_an_address_that_cannot_be_had_is_told_with_another_to_try(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["web", "--listen", address, "--state", str(tmp_path)]) == 64
    assert capsys.readouterr().err.count("\n") == 1
