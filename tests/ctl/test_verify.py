import json
import sqlite3
from pathlib import Path

import pytest

from riwoa.ctl import main

from .support import individual, write_journal

_A = (individual(0, ("a", 0.5, 1.0)),)
_B = (individual(0, ("b", 0.6, 1.0)),)


def test_an_intact_journal_gives_its_final_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", [_A, _B], finished=True)
    assert main(["verify", "--state", str(tmp_path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"]
    assert data["runs"] == [{"run_id": 1, "status": "finished", "generations": 2, "digest": data["final_digest"]}]
    assert main(["verify", "--db", str(tmp_path / "journal.db")]) == 0
    assert f"final digest {data['final_digest']}" in capsys.readouterr().out


def test_a_changed_row_exits_65_naming_the_generation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "journal.db"
    write_journal(path, [_A, _B])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE individuals SET fitness = 0.9 WHERE generation = 1")
    db.close()
    assert main(["verify", "--db", str(path)]) == 65
    assert "breaks at generation 1" in capsys.readouterr().err


def test_the_same_history_written_twice_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one.db", "two.db"):
        write_journal(tmp_path / name, [_A, _B])
    assert main(["verify", "--db", str(tmp_path / "one.db"), "--against", str(tmp_path / "two.db")]) == 0
    assert "the same: 2 generations" in capsys.readouterr().out


def test_different_histories_exit_3_and_tell_where_they_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "one.db", [_A, _A])
    write_journal(tmp_path / "two.db", [_A, _B])
    arguments = ["verify", "--json", "--db", str(tmp_path / "one.db"), "--against", str(tmp_path / "two.db")]
    assert main(arguments) == 3
    comparison = json.loads(capsys.readouterr().out)["comparison"]
    assert (comparison["same"], comparison["generation"], comparison["slot"]) == (False, 1, 0)


def test_a_missing_journal_exits_66(tmp_path: Path) -> None:
    assert main(["verify", "--state", str(tmp_path)]) == 66
