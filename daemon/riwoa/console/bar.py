"""Progress of a long verb on standard error: in place on a terminal that can, elsewhere a line every ten seconds.

A thread of its own draws, so that a verb which computes for minutes between two news still shows that it lives.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from riwoa.console.terminal import Terminal, fit
from riwoa.text import duration, printable

Advance = Callable[[int, int, str], None]  # done, total, a few words

_REDRAW_EVERY_S = 0.2
_LINE_EVERY_S = 10.0
_WIDTH = 20
_CLEAR = "\r\x1b[K"


class ProgressBar:
    """One line of progress, and when it was shown last; ``show`` may be called as often as one likes."""

    def __init__(self, what: str, unit: str, stream: TextIO, now_s: float) -> None:
        self._what = what
        self._unit = unit
        self._stream = stream
        self._in_place = Terminal.of(stream).redraws
        self._began_s = self._shown_s = now_s
        self._first: tuple[int, float] | None = None  # continued work starts where it was, or the rate would be wrong
        self._done, self._total, self._words = 0, 0, ""
        self._news_s = now_s

    def advance(self, done: int, total: int, words: str, now_s: float) -> None:
        """Note how far the work is; nothing is shown yet."""
        if self._first is None:
            self._first = done, now_s
        self._done, self._total, self._words, self._news_s = done, total, words, now_s

    def show(self, now_s: float) -> None:
        """Redraw the bar in place; elsewhere write a line if the last one is ten seconds old."""
        if self._in_place:
            if not getattr(self._stream, "behind", False):  # a terminal that was stopped gets no pile of old bars
                line = fit(self.line(now_s, bar=True), Terminal.of(self._stream).columns - 1)
                self._write(f"{_CLEAR}{line}")
        elif now_s - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now_s
            self._write(self.line(now_s) + "\n")

    def clear(self) -> None:
        """Take the bar off the terminal's line."""
        if self._in_place:
            self._write(_CLEAR)

    def line(self, now_s: float, *, bar: bool = False) -> str:
        """The progress in words: what is done, how far it is, how long it has taken and may take yet."""
        parts = [self._what]
        if self._total > 0:
            filled = min(_WIDTH, _WIDTH * self._done // self._total)
            drawn = f"{'█' * filled}{'░' * (_WIDTH - filled)} " if bar else ""
            parts.append(f"{drawn}{self._unit} {self._done:,} of {self._total:,}")
        parts.append(f"{duration(now_s - self._began_s)} so far")
        if (left_s := self._left_s(now_s)) is not None:
            parts.append(f"about {duration(left_s)} left")
        if self._words:
            parts.append(printable(self._words))
        return " · ".join(parts)

    def _left_s(self, now_s: float) -> float | None:
        """Seconds left by the pace so far; None while there is none, or when they have passed already."""
        if self._first is None or self._done <= self._first[0] or self._done >= self._total:
            return None
        first, since_s = self._first
        left_s = (self._news_s - since_s) * (self._total - self._done) / (self._done - first) - (now_s - self._news_s)
        return left_s if left_s > 0 else None

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def say(line: str) -> None:
    """Print a line on standard error that stays; a bar goes on below it."""
    clear = _CLEAR if Terminal.of(sys.stderr).redraws else ""
    print(clear + line, file=sys.stderr, flush=True)


@contextmanager
def bar(what: str, unit: str = "") -> Iterator[Advance]:
    """Show progress while the block runs.

    Yields a function to call with how far the work is; where nobody knows, it need not be called.
    """
    progress = ProgressBar(what, unit, sys.stderr, time.monotonic())
    over = threading.Event()

    def draw() -> None:
        while not over.wait(_REDRAW_EVERY_S):
            progress.show(time.monotonic())

    def advance(done: int, total: int, words: str = "") -> None:
        progress.advance(done, total, words, time.monotonic())

    thread = threading.Thread(target=draw, name="progress", daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        over.set()
        thread.join()
        progress.clear()
