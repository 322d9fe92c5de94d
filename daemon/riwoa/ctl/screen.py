"""Facts and tables as wide as the terminal, and the times and numbers that the verbs over the journal are given."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from riwoa.console.terminal import Terminal
from riwoa.ctl.command import columns
from riwoa.text import printable

_UNLIMITED = 10_000  # of a pipe: one fact is one line, for grep
_LEAST = 20
_NARROW = 40
_UNBROKEN = "\xa0"
_WITHIN_A_NUMBER = re.compile(r" (?=[±%→=] |%|→|(?:ms|px|s|min|h|points)\b)|(?<=[±→=]) ")
_UNITS_S = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def screen_columns() -> int:
    """How wide a line may be: the terminal's columns; in a pipe $COLUMNS, and any width where that says nothing."""
    if sys.stdout.isatty():
        return max(_LEAST, Terminal.of(sys.stdout).columns)
    named = os.environ.get("COLUMNS", "")
    return max(_LEAST, int(named)) if named.isdigit() and int(named) else _UNLIMITED


def facts(rows: Iterable[tuple[str, str]], indent: int = 2) -> str:
    """Names and what they are, one below the other; rows without a text are left out."""
    shown = [(name, text) for name, text in rows if text]
    widest = max((len(name) for name, _ in shown), default=0)
    margin = " " * indent
    hanging = f"{margin}  " if screen_columns() < _NARROW else " " * (indent + widest + 2)
    lines = []
    for name, text in shown:
        if screen_columns() < _NARROW:
            lines += [paragraph(name, margin), paragraph(text, hanging)]
        else:
            lines.append(paragraph(text, hanging, f"{margin}{name.ljust(widest)}  "))
    return "\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    """Columns below their names; columns without a cell are left out. None where that is too wide."""
    known = [i for i in range(len(head)) if any(row[i] for row in rows)]
    wide = columns([[head[i] for i in known], *([row[i] for i in known] for row in rows)])
    return wide if max(map(len, wide.splitlines())) <= screen_columns() else None


def side_by_side(heads: Sequence[str], sides: Sequence[Mapping[str, str]]) -> str:
    """What is known of several things, a column each; too wide, one below the other."""
    names = [name for name in dict.fromkeys(name for side in sides for name in side) if any(s.get(name) for s in sides)]
    found = table(["", *heads], [[name, *(side.get(name, "") for side in sides)] for name in names])
    below = (f"{head}\n{facts(side.items())}" for head, side in zip(heads, sides, strict=True))
    return found if found is not None else "\n\n".join(below)


def paragraph(text: str, hanging: str = "", first: str | None = None) -> str:
    """A text in lines that fit; ``first`` begins the first, ``hanging`` the others."""
    begin = hanging if first is None else first
    whole = _WITHIN_A_NUMBER.sub(_UNBROKEN, text)
    broken = textwrap.wrap(
        whole, screen_columns(), initial_indent=begin, subsequent_indent=hanging, break_on_hyphens=False
    )
    return "\n".join(broken).replace(_UNBROKEN, " ") or begin.rstrip()


def moment(unix_s: float) -> str:
    """A wall time to the second, local."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return "an unknown time"


def quoted(text: str, hanging: str, most_lines: int | None = None) -> str:
    """A text that somebody else wrote, made safe line by line; what is left out of it is counted."""
    lines = [printable(line, 2_000) for line in text.strip().splitlines()]
    shown = lines if most_lines is None else lines[:most_lines]
    more = [f"{hanging}({len(lines) - len(shown)} more lines)"] if len(shown) < len(lines) else []
    return "\n".join([*(paragraph(line, f"{hanging}| ") for line in shown), *more])


def counted(text: str) -> int:
    """A whole number from 1: an argument's type.

    Raises:
        ArgumentTypeError: something else.
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text[:18]) == int(text)):
        raise argparse.ArgumentTypeError(f"needs a whole number from 1, not {printable(text, 40)!r}")
    return int(text)


def since(text: str) -> float:
    """The wall time, in seconds of Unix, of a time ago (``2h``) or a local date (``2026-01-31T22:00``).

    Raises:
        ArgumentTypeError: something else.
    """
    ago = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)\s*([a-z]+)", text.strip().lower())
    if ago is not None and ago.group(2) in _UNITS_S:
        return time.time() - float(ago.group(1)) * _UNITS_S[ago.group(2)]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        what = "needs a time ago such as 30min, 2h or 1d, or a date such as 2026-01-31T22:00"
        raise argparse.ArgumentTypeError(f"{what}, not {printable(text, 40)!r}") from None
