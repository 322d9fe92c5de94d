"""Corrects moments that were noted by a wall clock which was wrong at the time and has been set since.

Durations are by the monotonic clock everywhere; only deadlines, nights and quiet hours ask the wall clock. A computer
without a battery for its clock starts in the past, and the network sets it right minutes later.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_STEP_S = 60.0  # less is how clocks are slewed, or drift in months


def _steady_s() -> float:
    """Seconds of a clock that nobody sets; it counts those of a suspended machine too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class WallClock:
    """Compares the wall clock with the seconds that passed since this process began.

    Args:
        now_unix_s: the wall clock.
        steady_s: a clock that nobody sets.
    """

    def __init__(self, now_unix_s: Callable[[], float] = time.time, steady_s: Callable[[], float] = _steady_s) -> None:
        self._now_unix_s, self._steady_s = now_unix_s, steady_s
        self._began_unix_s, self._began_s = now_unix_s(), steady_s()

    def redated(self, unix_s: float) -> float:
        """A moment that this process noted, by the clock as it is set now; any other moment as it stands."""
        passed_s = self._steady_s() - self._began_s
        step_s = self._now_unix_s() - self._began_unix_s - passed_s
        noted_here = self._began_unix_s <= unix_s <= self._began_unix_s + passed_s
        return unix_s + step_s if noted_here and abs(step_s) > _STEP_S else unix_s


_PROCESS = WallClock()


def redated(unix_s: float) -> float:
    """``WallClock.redated`` of this process."""
    return _PROCESS.redated(unix_s)
