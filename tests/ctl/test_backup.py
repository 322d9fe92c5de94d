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


def test_of_the_copies_in_a_folder_the_newest_stay_and_no_other_file_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "journal.db", ROWS)
    folder = tmp_path / "backups"
    folder.mkdir()
    older = [f"riwoa-2026010{day}-120000.db" for day in (1, 2, 3)]
    others = ["riwoa-20260101-120000.db.txt", "journal.db", "riwoa-old.db"]
    for name in (*older, *others):
        (folder / name).write_text("")
    assert main(["backup", "--into", str(folder), "--keep", "2", "--state", str(tmp_path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert sorted(Path(file).name for file in data["removed"]) == older[:2]
    assert sorted(f.name for f in folder.iterdir()) == sorted([older[2], Path(data["file"]).name, *others])
    assert main(["verify", "--db", data["file"]]) == 0


def test_a_copy_that_fails_costs_no_older_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "riwoa-20260101-120000.db").write_text("")
    assert main(["backup", "--into", str(folder), "--keep", "1", "--state", str(tmp_path)]) == 66
    assert [f.name for f in folder.iterdir()] == ["riwoa-20260101-120000.db"]
    assert main(["backup", "--state", str(tmp_path)]) == 64
    assert "one of the arguments" in capsys.readouterr().err
