"""``riwoactl doctor``: what is well is ok, and each thing that is not is named with what mends it."""

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from riwoa.config.loading import load
from riwoa.ctl import main
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.obtain import shipped_table
from riwoa.hardware.probe import probe
from riwoa.paths import StatePaths
from riwoa.service.doctor import CHECKS, Finding, Patient

OFF = ("cognition.provider=none",)
_NO_TABLE = ("oracle.kind=table", "oracle.table.file=/none.npz")
_NO_SERVER = ("cognition.provider=http", "cognition.http.url=http://127.0.0.1:9/v1", "cognition.http.model=m")
_WANTS_MEMORY = ("governor.memory_pause_bytes=100000000000000000", "governor.memory_resume_bytes=200000000000000000")


def found_by(name: str, state: Path, *settings: str) -> Finding | None:
    """What one check finds."""
    return CHECKS[name](Patient(load(None, [*OFF, *settings], {}).config, StatePaths(str(state))))


def _foreign_table(state: Path) -> None:
    table = LatencyTable.load(shipped_table())
    replace(table, device=replace(probe(), cpu="another")).save(state / "latency_lut.json")


def _killed(state: Path) -> None:
    (state / "status.json").write_text(json.dumps({"state": "running", "go_on": "riwoad --state there"}))


def _unhealthy(state: Path) -> None:
    (state / "status.json").write_text(json.dumps({"state": "unhealthy", "message": "workers die"}))


def _broken_journal(state: Path) -> None:
    (state / "journal.db").write_bytes(b"SQLite format 3\0" + bytes(500))


@pytest.mark.parametrize(
    ("name", "prepare", "settings", "level", "says", "mend"),
    [
        ("configuration", None, _NO_TABLE, "fail", "needs oracle.table.accuracy", "config check"),
        ("latency table", _foreign_table, (), "fail", "another", "lut build"),
        ("latency table", None, _NO_TABLE, None, "", ""),
        ("processor", None, ("oracle.workers=500",), "warn", "500 workers", "auto"),
        ("disk", None, ("governor.disk_resume_bytes=1000000000000000000",), "fail", "pauses", "make room"),
        ("memory", None, ("governor.memory_resume_bytes=1000000000000000000",), "warn", "GiB", "end what else"),
        ("governor", None, _WANTS_MEMORY, "warn", "memory left", "[governor]"),
        ("daemon", _unhealthy, (), "fail", "workers die", "riwoactl logs"),
        ("daemon", _killed, (), "warn", "killed while running", "riwoad --state there"),
        ("daemon", None, (), None, "", ""),
        ("journal", None, (), None, "", ""),
        ("journal", _broken_journal, (), "fail", "journal", "riwoactl verify"),
        ("model", None, (), "ok", "off", ""),
        ("model", None, _NO_SERVER, "warn", "cannot be reached", "riwoactl model check"),
        ("model", None, ("cognition.provider=model", "cognition.model=no/such"), "warn", "without it", "model pull"),
        ("SQLite", None, (), "ok", sqlite3.sqlite_version, ""),
    ],
)  # fmt: skip
def test_each_thing_is_named_with_what_mends_it(
    tmp_path: Path,
    name: str,
    prepare: Callable[[Path], None] | None,
    settings: tuple[str, ...],
    level: str | None,
    says: str,
    mend: str,
) -> None:
    if prepare is not None:
        prepare(tmp_path)
    found = found_by(name, tmp_path, *settings)
    if level is None:
        assert found is None
        return
    assert found is not None
    assert (found.level, says in found.says, mend in found.mend) == (level, True, True), found
    assert (found.mend == "") == (level == "ok"), "whoever is warned is told what to do"


def test_a_state_that_is_a_file_fails_and_the_others_still_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state").write_text("")
    assert main(["doctor", "--json", "--state", str(tmp_path / "state"), "--set", *OFF]) == 4
    data = json.loads(capsys.readouterr().out)
    levels = {row["check"]: row["level"] for row in data["checks"]}
    assert levels["state"] == "fail"
    assert levels["libraries"] == "ok"
    assert "clock" in levels
    assert data["counts"]["fail"] >= 1


def test_a_place_that_a_run_would_make_is_well_and_stays_unmade(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--state", str(tmp_path / "new" / "state"), "--set", *OFF]) in (
        0,
        4,
    )  # 4: this machine's own
    assert "which the first run makes" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_stands_before_the_installation_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    found = found_by("clock", tmp_path)
    assert found is not None
    assert found.level == "fail"
    assert "set-ntp" in found.mend
