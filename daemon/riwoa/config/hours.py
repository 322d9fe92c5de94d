"""Hours of the day and deadlines, in local time: the only place where a wall clock decides anything.

Twice a year a time of day is shown twice, or not at all. A time that is shown twice is two moments; one that the clock
jumps over is the moment of the jump. So "the first 02:30 after now" always is a moment, and truly after now.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, time, timedelta

_DAY_S = 86_400
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_WITH_SECONDS = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d")
_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")

_LAST_YEAR = 9000  # what is reckoned from a deadline must be a date, too


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
        moment = datetime.fromisoformat(text)
        moment.timestamp()  # a year that the clock does not know, too
        if moment.year <= _LAST_YEAR and len(text) > len("2026-01-01"):
            return text
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError("a local time, 07:00 or 2026-01-31T07:00")


def inside(hours: str, now: datetime) -> bool:
    """Whether what the clock shows lies in a span of the day; 22:00-07:00 goes over midnight."""
    start, end = _ends(hours)
    of_day = now.time()
    return start <= of_day < end if start < end else of_day >= start or of_day < end


def window(hours: str, now: datetime) -> tuple[datetime, datetime] | None:
    """Beginning and end of the span that ``now`` lies in, None outside of it.

    All three are local; ``fold`` tells the second pass of an hour from its first.
    """
    if not inside(hours, now):
        return None
    (start, end), now_unix_s = _ends(hours), now.timestamp()
    began_unix_s = max(moment for moment in _around(start, now_unix_s) if moment <= now_unix_s)
    ends_unix_s = min(moment for moment in _around(end, now_unix_s) if moment > now_unix_s)
    return datetime.fromtimestamp(began_unix_s), datetime.fromtimestamp(ends_unix_s)


def deadline_unix_s(text: str, since_unix_s: float) -> float:
    """The moment that a deadline means: of a time of day, the first after ``since_unix_s``.

    A date has one moment, however long ago; of the two that a date and time in autumn may have, the first after
    ``since_unix_s``, else the later.
    """
    if _OF_DAY.fullmatch(text):
        return min(moment for moment in _around(time.fromisoformat(text), since_unix_s) if moment > since_unix_s)
    wanted = datetime.fromisoformat(text)
    if wanted.tzinfo is not None:
        return wanted.timestamp()
    moments = _moments(wanted)
    return next((moment for moment in moments if moment > since_unix_s), moments[-1])


def _ends(hours: str) -> tuple[time, time]:
    start, end = hours.split("-")
    return time.fromisoformat(start), time.fromisoformat(end)


def _around(of_day: time, unix_s: float) -> Iterator[float]:
    """The moments of a time of day from at least a day before to at least a day after another moment."""
    today = datetime.fromtimestamp(unix_s).date()
    for days in range(-2, 4):  # a zone that moves over the date line leaves a day out
        yield from _moments(datetime.combine(today + timedelta(days), of_day))


def _moments(wall: datetime) -> list[float]:
    """The moments at which the local clock shows ``wall``, in order; where it never does, that at which it jumps."""
    offered = sorted({wall.replace(fold=0).timestamp(), wall.replace(fold=1).timestamp()})
    return [moment for moment in offered if datetime.fromtimestamp(moment) == wall] or [_jump(wall, offered[0])]


def _jump(wall: datetime, near_unix_s: float) -> float:
    """The first whole second at which the clock shows more than ``wall``."""
    low, high = int(near_unix_s) - _DAY_S, int(near_unix_s) + 2 * _DAY_S
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if datetime.fromtimestamp(middle) >= wall else (middle, high)
    return float(high)
