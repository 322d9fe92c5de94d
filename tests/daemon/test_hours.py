from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.hours import checked_deadline, checked_hours, deadline_unix_s, inside, window

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
