"""Hours of the day and deadlines, in local time: the only place where a wall clock decides anything."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_WITH_SECONDS = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d")
_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def checked_hours(text: str) -> str:
    """``text`` if it is a span of the day.

    Raises:
        ValueError: it is not of the form 22:00-07:00, or empty.
    """
    found = _HOURS.fullmatch(text)
    if found is None or found.group(1, 2) == found.group(3, 4):
        raise ValueError("a span of the day, 22:00-07:00")
    return text


def deadline_text(value: object) -> object:
    """TOML has times of its own, which nobody need put in quotes; a time of day has no seconds here."""
    if isinstance(value, time):
        return f"{value:%H:%M}"
    if isinstance(value, str) and _WITH_SECONDS.fullmatch(value):
        return value[: len("07:00")]
    return value.isoformat() if isinstance(value, datetime) else value


def checked_deadline(text: str) -> str:
    """``text`` if it is a time of day or a local date and time.

    Raises:
        ValueError: it is neither.
    """
    if _OF_DAY.fullmatch(text):
        return text
    try:
        datetime.fromisoformat(text).timestamp()  # a year that the clock does not know, too
        if len(text) > len("2026-01-01"):
            return text
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError("a local time, 07:00 or 2026-01-31T07:00")


def inside(hours: str, now: datetime) -> bool:
    """Whether a local time lies in a span of the day; 22:00-07:00 goes over midnight."""
    start, end = _ends(hours)
    of_day = now.time()
    return start <= of_day < end if start < end else of_day >= start or of_day < end


def window(hours: str, now: datetime) -> tuple[datetime, datetime] | None:
    """Beginning and end of the span that ``now`` lies in, None outside of it."""
    if not inside(hours, now):
        return None
    start, end = _ends(hours)
    began = datetime.combine(now.date(), start, now.tzinfo)
    began = began if began <= now else began - timedelta(days=1)
    over = datetime.combine(began.date(), end, now.tzinfo)
    return began, over if over > began else over + timedelta(days=1)


def deadline_unix_s(text: str, since_unix_s: float) -> float:
    """The moment that a deadline means; a time of day is the first such after ``since_unix_s``."""
    found = _OF_DAY.fullmatch(text)
    if found is None:
        return datetime.fromisoformat(text).timestamp()
    since = datetime.fromtimestamp(since_unix_s)
    due = datetime.combine(since.date(), time(int(found.group(1)), int(found.group(2))))
    return (due if due > since else due + timedelta(days=1)).timestamp()


def _ends(hours: str) -> tuple[time, time]:
    start, end = hours.split("-")
    return time.fromisoformat(start), time.fromisoformat(end)
