from __future__ import annotations

import functools
import os
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.config.hours import checked_deadline, checked_hours, deadline_unix_s, inside, window

DAY = datetime(2026, 6, 1)
of_day = st.times().map(lambda t: f"{t:%H:%M}")


@pytest.mark.parametrize("text", ["22-07", "24:00-07:00", "22:00", "22:00-22:00", "", "22:00-07:00 ", "9:00-10:00"])
def test_what_is_no_span_of_the_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="22:00-07:00"):
        checked_hours(text)


@pytest.mark.parametrize("text", ["7:00", "25:00", "tomorrow", "2026-01-31", "2026-13-01T07:00", ""])
def test_what_is_no_deadline_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="07:00"):
        checked_deadline(text)


@given(of_day, of_day, st.datetimes(min_value=DAY, max_value=DAY + timedelta(days=3)))
def test_a_window_is_there_exactly_inside_and_holds_now(start: str, end: str, now: datetime) -> None:
    hours = f"{start}-{end}"
    if start == end:
        return
    found = window(hours, now)
    assert (found is not None) == inside(hours, now)
    if found is not None:
        began, ends = found
        assert began <= now < ends <= began + timedelta(days=1)
        assert (f"{began:%H:%M}", f"{ends:%H:%M}") == (start, end)


def test_a_span_over_midnight_holds_both_sides_of_it() -> None:
    assert inside("22:00-07:00", DAY.replace(hour=23))
    assert inside("22:00-07:00", DAY.replace(hour=6, minute=59))
    assert not inside("22:00-07:00", DAY.replace(hour=7))
    assert not inside("22:00-07:00", DAY.replace(hour=12))


@given(of_day, st.datetimes(min_value=DAY, max_value=DAY + timedelta(days=3)))
def test_a_time_of_day_is_the_first_after_it_was_set(text: str, since: datetime) -> None:
    due = datetime.fromtimestamp(deadline_unix_s(text, since.timestamp()))
    assert timedelta(0) < due - since <= timedelta(days=1)
    assert f"{due:%H:%M}" == text


def test_a_date_is_that_date_whenever_it_was_set() -> None:
    wanted = datetime(2026, 6, 2, 7, 30)
    assert deadline_unix_s("2026-06-02T07:30", 0.0) == wanted.timestamp()
    assert deadline_unix_s("2026-06-02 07:30:00", 2e9) == wanted.timestamp()


# -- both changes of the clock ---------------------------------------------------------------------------------------


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name: str = request.param
    try:
        ZoneInfo(name)
    except ZoneInfoNotFoundError:
        pytest.skip(f"this machine has no time zone {name}")
    monkeypatch.setenv("TZ", name)
    time.tzset()
    yield name
    monkeypatch.undo()
    time.tzset()


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


# Coprime to the hour: no minute of it is left out. `make test-crash` asks four times as often.
EVERY_MINUTES = 7 if "TEST_FUZZ" in os.environ else 31

# By how much the clock is moved, when, and whether there is a second pass of an hour or none: half an hour in one zone.
CHANGES = [
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
    ("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"),
    ("Africa/Casablanca", "2026-02-15"), ("Africa/Casablanca", "2026-03-22"),
    ("America/Sao_Paulo", "2018-11-04"), ("America/Sao_Paulo", "2018-02-18"),  # at midnight: the day before again
    ("America/St_Johns", "2009-11-01"),  # at one minute past midnight
    ("Pacific/Apia", "2011-12-30"),  # a day that never was
    ("Asia/Kathmandu", "2026-06-01"), ("UTC", "2026-06-01"),
]  # fmt: skip


@functools.cache
def moments_by_time_of_day(zone: str, day: date) -> tuple[list[float], list[datetime]]:
    """Every minute of some days around: the moment, and what a clock on the wall shows, by another library."""
    first = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=3)
    moments = [first + timedelta(minutes=m) for m in range(8 * 1440)]
    return [m.timestamp() for m in moments], [m.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for m in moments]


@functools.cache
def shown_or_jumped_over(zone: str, day: date) -> Mapping[str, list[float]]:
    """The moments of every time of day, found by looking at the wall every minute."""
    unix_s, shown = moments_by_time_of_day(zone, day)
    found: dict[str, list[float]] = defaultdict(list)
    for before, at, moment in zip(shown, shown[1:], unix_s[1:], strict=False):
        skipped = [before + timedelta(minutes=m) for m in range(1, int((at - before) / timedelta(minutes=1)))]
        for text in {f"{on_the_wall:%H:%M}" for on_the_wall in (at, *skipped)}:
            found[text].append(moment)
    return found


@pytest.mark.parametrize(("zone", "day"), CHANGES, indirect=["zone"])
def test_a_time_of_day_is_the_first_such_moment_truly_after_every_minute_of_a_change(zone: str, day: str) -> None:
    unix_s, _ = moments_by_time_of_day(zone, date.fromisoformat(day))
    asked = {f"{h:02}:{m:02}" for h in (*range(5), 23) for m in (0, 1, 10, 30, 45, 59)} | {"07:00", "12:00"}
    for wanted in sorted(asked):
        moments = shown_or_jumped_over(zone, date.fromisoformat(day))[wanted]
        for since in range(2 * 1440, 5 * 1440, EVERY_MINUTES):
            since_unix_s = unix_s[since] + (29.5 if since % 2 else 0.0)
            first = moments[bisect_right(moments, since_unix_s)]
            assert deadline_unix_s(wanted, since_unix_s) == first, (wanted, datetime.fromtimestamp(since_unix_s, UTC))


@pytest.mark.parametrize(("zone", "day"), CHANGES, indirect=["zone"])
@pytest.mark.parametrize("hours", ["21:00-07:00", "01:00-01:30", "23:30-02:30", "02:10-04:00", "00:00-03:00"])
def test_a_window_holds_now_and_ends_at_its_next_end_in_every_minute_of_a_change(
    zone: str, day: str, hours: str
) -> None:
    unix_s, shown = moments_by_time_of_day(zone, date.fromisoformat(day))
    by_time_of_day = shown_or_jumped_over(zone, date.fromisoformat(day))
    begins, ends = (by_time_of_day[text] for text in hours.split("-"))
    for now in range(3 * 1440, 5 * 1440):
        found = window(hours, datetime.fromtimestamp(unix_s[now] + 0.5))
        assert (found is not None) == inside(hours, shown[now])
        if found is not None:
            began_unix_s, ends_unix_s = (moment.timestamp() for moment in found)
            assert began_unix_s == begins[bisect_right(begins, unix_s[now] + 0.5) - 1]
            assert ends_unix_s == ends[bisect_right(ends, unix_s[now] + 0.5)]
            assert began_unix_s <= unix_s[now] + 0.5 < ends_unix_s


@pytest.mark.parametrize("zone", ["America/New_York"], indirect=True)
@pytest.mark.parametrize(
    ("since", "wanted", "due"),
    [
        ("2026-11-01 06:10", "01:30", "2026-11-01 06:30"),  # the second 01:10
        ("2026-11-01 05:10", "01:30", "2026-11-01 05:30"),
        ("2026-11-01 05:45", "01:30", "2026-11-01 06:30"),
        ("2026-11-01 06:45", "01:50", "2026-11-01 06:50"),
        ("2026-03-08 06:00", "02:30", "2026-03-08 07:00"),  # is not there that day
        ("2026-03-08 07:10", "02:30", "2026-03-09 06:30"),
        ("2026-03-08 03:00", "02:30", "2026-03-08 07:00"),
        ("2026-11-01 04:00", "2026-11-01T01:30", "2026-11-01 05:30"),
        ("2026-11-01 06:00", "2026-11-01T01:30", "2026-11-01 06:30"),
        ("2026-11-02 06:00", "2026-11-01T01:30", "2026-11-01 06:30"),  # it is over
        ("2026-03-01 06:00", "2026-03-08T02:30", "2026-03-08 07:00"),
        ("2026-03-01 06:00", "2026-03-08T02:30-05:00", "2026-03-08 07:30"),
    ],
)
@pytest.mark.usefixtures("zone")
def test_a_deadline_in_an_hour_that_is_there_twice_or_not_at_all(since: str, wanted: str, due: str) -> None:
    assert deadline_unix_s(wanted, utc(since)) == utc(due)


def test_a_zone_that_changes_while_it_runs_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    now_unix_s = utc("2026-06-01 12:00")
    for name, due in (("UTC", "2026-06-02 07:00"), ("JST-9", "2026-06-01 22:00")):
        monkeypatch.setitem(os.environ, "TZ", name)
        time.tzset()
        assert deadline_unix_s("07:00", now_unix_s) == utc(due)
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("text", ["9999-12-31T23:59", "9001-01-01T00:00"])
def test_a_deadline_beyond_what_can_be_reckoned_with_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a local time"):
        checked_deadline(text)
