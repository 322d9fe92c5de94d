from __future__ import annotations

import json
from pathlib import Path

import pytest

from riwoa.ctl import main

from .support import held_lock, individual, write_journal

ROWS = [(individual(0, ("a", 0.5, 1.0)),), (individual(0, ("b", 0.6, 1.0)),)]


def test_a_backup_is_made_beside_a_daemon_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", ROWS)
    with held_lock(tmp_path):
        assert main(["backup", str(tmp_path / "copy.db"), "--state", str(tmp_path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert main(["verify", "--db", str(tmp_path / "copy.db"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["final_digest"] == data["final_digest"]
    assert main(["backup", str(tmp_path / "copy.db"), "--state", str(tmp_path)]) == 74
    assert "exists: name another file" in capsys.readouterr().err


def test_compacting_waits_for_the_daemon_to_be_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", ROWS)
    with held_lock(tmp_path):
        assert main(["compact", "--state", str(tmp_path)]) == 75
    capsys.readouterr()
    assert main(["compact", "--state", str(tmp_path), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"bytes_before", "bytes_after"}


def test_without_a_journal_there_is_nothing_to_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", str(tmp_path / "copy.db"), "--state", str(tmp_path)]) == 66
    assert "no journal" in capsys.readouterr().err
