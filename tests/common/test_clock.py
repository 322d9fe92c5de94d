from __future__ import annotations

from datetime import UTC, datetime

import pytest

from riwoa.clock import WallClock
from riwoa.run.deadline import Deadline

YEAR_S = 365 * 86_400.0


class Machine:
    """Its clocks: one that is set, and one that only passes."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.ahead_s = 1.8e9
        self.wall = WallClock(lambda: self.ahead_s + self.passed_s, lambda: self.passed_s)

    def now_unix_s(self) -> float:
        return self.ahead_s + self.passed_s


@pytest.mark.parametrize("step_s", [YEAR_S, -YEAR_S, 3600.0, -3600.0, -1.8e9])
def test_what_was_noted_before_the_clock_was_set_is_dated_by_the_clock_as_it_is(step_s: float) -> None:
    machine = Machine()
    machine.passed_s = 100.0
    noted_unix_s = machine.now_unix_s()
    assert machine.wall.redated(noted_unix_s) == noted_unix_s
    machine.ahead_s += step_s
    machine.passed_s = 400.0
    assert machine.wall.redated(noted_unix_s) == machine.now_unix_s() - 300.0
    assert machine.wall.redated(1.7e9) == 1.7e9  # of an earlier life, whose clock may have been right


def test_a_clock_that_is_slewed_and_a_suspended_machine_move_nothing() -> None:
    machine = Machine()
    noted_unix_s = machine.now_unix_s()
    machine.passed_s, machine.ahead_s = 9 * 3600.0, machine.ahead_s + 30.0
    assert machine.wall.redated(noted_unix_s) == noted_unix_s


@pytest.mark.parametrize("step_s", [YEAR_S, -YEAR_S, 56 * YEAR_S])
def test_a_deadline_of_the_day_is_none_of_a_year_ago_when_the_clock_is_set(
    step_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    monkeypatch.setattr("riwoa.run.deadline.redated", machine.wall.redated)
    deadline = Deadline("deadline", "07:00", machine.now_unix_s())
    machine.passed_s, machine.ahead_s = 60.0, machine.ahead_s + step_s
    assert 0 < deadline.due_unix_s - (machine.now_unix_s() - 60.0) <= 25 * 3600
    assert f"{datetime.fromtimestamp(deadline.due_unix_s):%H:%M}" == "07:00"
    dated = Deadline("deadline", "2027-06-01T07:00+00:00", machine.now_unix_s())
    assert dated.due_unix_s == datetime(2027, 6, 1, 7, tzinfo=UTC).timestamp()
