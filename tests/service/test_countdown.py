from __future__ import annotations

import time
from pathlib import Path

import pytest

from riwoa.config.loading import load
from riwoa.paths import StatePaths
from riwoa.run.deadline import Schedule
from riwoa.service.countdown import Countdown
from riwoa.service.parts import start_command
from riwoa.service.status import StatusBoard


def test_the_time_left_follows_the_pace_and_is_unknown_before_it_and_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    work = Countdown()
    work.told(0, 10)
    assert work.left_s() is None
    now_s = 102.0
    work.told(4, 10)
    assert work.left_s() == pytest.approx(3.0)
    now_s = 104.0
    assert work.left_s() == pytest.approx(1.0)
    now_s = 106.0
    assert work.left_s() is None  # it goes on beyond its estimate


def test_a_board_does_not_say_that_nothing_is_left_of_what_goes_on(tmp_path: Path) -> None:
    board = StatusBoard(tmp_path / "status.json", tmp_path)
    for told_s, shown_s in ((None, None), (0.4, None), (30.0, 30.0)):
        board.sources.time_left_s = lambda left_s=told_s: left_s  # type: ignore[misc]
        assert board.look()["time_left_s"] == shown_s


def test_the_pace_counts_waits_for_the_model_but_no_pause() -> None:
    schedule = Schedule(lambda: 0.0)
    schedule.generation_s = [1.0, 1.0, 1.0, 3.0, 4 * 3600.0]
    assert schedule.pace_s == pytest.approx(1.5)


def test_the_command_that_goes_on_names_state_file_and_settings_and_a_service_is_systemds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    file = tmp_path / "my riwoa.toml"
    file.write_text("[run]\n")
    paths = StatePaths(tmp_path / "state")
    command = start_command(paths, load(file, ["run.seed=3"], {}), ["run.seed=3"], foreground=True)
    rest = f"riwoad --foreground --state {paths.directory} --config '{file}' --set run.seed=3"
    assert command.endswith(rest)
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    assert start_command(paths, load(None, [], {}), [], foreground=False) == "systemctl start riwoa"
