"""What a stream can show; asked by the progress of verbs, the foreground view and the log."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from typing import TextIO

_COLUMNS, _ROWS = 80, 24  # where nobody tells


@dataclass(frozen=True, slots=True)
class Terminal:
    """The abilities of a stream.

    Attributes:
        redraws: lines can be drawn again in place.
        colours: escapes for colours are wanted.
        columns: how many characters fit on a line.
        rows: how many lines fit.
    """

    redraws: bool
    colours: bool
    columns: int
    rows: int

    @classmethod
    def of(cls, stream: TextIO) -> Terminal:
        """The abilities of this stream now; a window may be resized at any moment."""
        redraws = _isatty(stream) and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
        # NO_COLOR counts where it is set to anything (no-color.org).
        return cls(redraws, redraws and not os.environ.get("NO_COLOR"), *_size(stream))


def _isatty(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (OSError, ValueError):  # closed
        return False


def _size(stream: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return _COLUMNS, _ROWS
    return size.columns or _COLUMNS, size.lines or _ROWS  # a serial line says 0


def fit(line: str, columns: int) -> str:
    """The part of a line that fits into so many columns; ideographs take two of them, accents none."""
    used = 0
    for i, character in enumerate(line):
        if unicodedata.combining(character):
            continue
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > columns:
            return line[:i]
    return line
