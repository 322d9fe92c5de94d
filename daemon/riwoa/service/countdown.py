"""How long counted work takes yet, by the pace since it began."""

from __future__ import annotations

import time


class Countdown:
    """Seconds that counted work takes yet; it begins when it is made."""

    def __init__(self) -> None:
        self._since_s = self._news_s = time.monotonic()
        self._first: int | None = None
        self._done = self._total = 0

    def told(self, done: int, total: int) -> None:
        """Take in how far the work is."""
        self._news_s = time.monotonic()
        if self._first is None:
            self._first, self._since_s = done, self._news_s
        self._done, self._total = done, total

    def left_s(self) -> float | None:
        """Seconds from now; None before anything is done, and where the work goes on beyond its estimate."""
        taken = self._done - (self._first or 0)
        if taken <= 0:
            return None
        now_s = time.monotonic()
        left_s = (self._news_s - self._since_s) / taken * (self._total - self._done) - (now_s - self._news_s)
        return left_s if left_s > 0 else None
