import json
from pathlib import Path

import pytest

from riwoa.ctl import main
from riwoa.ctl.pareto import pareto_front

from .support import individual, write_journal

_NAN = float("nan")
_FIRST = (individual(0, ("slow", 0.9, 5.0)), individual(1, ("dominated", 0.5, 1.5)), individual(2, ("failed", _NAN, 0)))
_SECOND = (individual(0, ("fast", 0.6, 1.0)), individual(1, ("good", 0.8, 1.9)))


def test_the_front_is_recomputed_from_the_journal_with_the_leader_and_the_target_marked(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, _SECOND])
    data = pareto_front(tmp_path / "journal.db")
    assert [(p["architecture_key"], p["leader"]) for p in data["front"]] == [
        ("fast", False),
        ("good", True),  # the most accurate within the target, though "slow" is more accurate
        ("slow", False),
    ]
    assert data["target_ms"] == 2.0


def test_the_table_says_which_networks_meet_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, _SECOND])
    assert main(["pareto", "--state", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "latency target 2.000 ms" in lines[0]
    assert [" yes " in line for line in lines[2:5]] == [True, True, False]
    assert [line.startswith("*") for line in lines[2:5]] == [False, True, False]


def test_a_run_without_evaluations_has_no_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", [])
    assert main(["pareto", "--state", str(tmp_path)]) == 0
    assert "no evaluation was committed yet" in capsys.readouterr().out


def test_an_unknown_run_exits_66(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST])
    assert main(["pareto", "--run", "7", "--json", "--state", str(tmp_path)]) == 66
    assert "has no run 7" in json.loads(capsys.readouterr().out)["error"]
