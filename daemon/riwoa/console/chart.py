"""Points as lines of text: Braille characters of two by four dots, or asterisks where an encoding has none.

Written here because what draws in terminals brings a framework along (Textual), or draws no scatter (Rich); this is a
grid of bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row, then column, of a character
_FEWEST_COLUMNS, _FEWEST_ROWS = 16, 4

XY = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """What lies between both ends of a side, and how a number of it is written."""

    low: float
    high: float
    written: Callable[[float], str]

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the low end, 1 at the high one; the middle where both are the same."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def chart(
    points: Iterable[XY], x: Axis, y: Axis, columns: int, rows: int, *, mark_x: float | None = None, plain: bool = False
) -> list[str]:
    """Lines of a picture of points, with the ends of both axes written; empty where there is no room for it.

    Args:
        points: those outside of the axes are left out.
        x: to the right.
        y: upwards.
        columns: of the whole.
        rows: of the whole, the last one for the ends of ``x``.
        mark_x: an upright dotted line.
        plain: no Braille.
    """
    ends = [y.written(y.high), y.written(y.low)]
    margin = max(map(len, ends)) + 1
    wide, high = columns - margin - 1, rows - 1
    if wide < _FEWEST_COLUMNS or high < _FEWEST_ROWS:
        return []
    cells = _cells(points, x, y, wide, high, plain=plain)
    marked = None if mark_x is None or not 0.0 <= x.share(mark_x) <= 1.0 else round(x.share(mark_x) * (wide - 1))
    lines = []
    for row, line in enumerate(cells):
        if marked is not None and line[marked] == " ":
            line[marked] = ":" if plain else "┊"
        label = ends[0] if row == 0 else ends[1] if row == high - 1 else ""
        lines.append(f"{label:>{margin - 1}} {'|' if plain else '│'}{''.join(line)}".rstrip())
    left, right = x.written(x.low), x.written(x.high)
    lines.append(f"{'':{margin + 1}}{left}{right:>{max(1, wide - len(left))}}"[:columns])
    return lines


def _cells(points: Iterable[XY], x: Axis, y: Axis, wide: int, high: int, *, plain: bool) -> list[list[str]]:
    """The characters of a picture, by row and column."""
    across, down = (1, 1) if plain else (2, 4)
    bits = [[0] * wide for _ in range(high)]
    for at_x, at_y in points:
        right, up = x.share(at_x), y.share(at_y)
        if not (0.0 <= right <= 1.0 and 0.0 <= up <= 1.0):
            continue
        column = min(wide * across - 1, int(right * wide * across))
        row = min(high * down - 1, int((1.0 - up) * high * down))
        bits[row // down][column // across] |= _DOTS[row % down][column % across]
    full = "*" if plain else ""
    return [[" " if not cell else full or chr(_BRAILLE + cell) for cell in line] for line in bits]


def steps(points: Sequence[XY], x: Axis, columns: int) -> list[XY]:
    """The line of a value that stays until the next point, as points close enough to touch each other."""
    found: list[XY] = []
    at, last = 0, None
    for n in range(2 * columns + 1):
        here = x.low + (x.high - x.low) * n / (2 * columns)
        while at < len(points) and points[at][0] <= here:
            last, at = points[at][1], at + 1
        if last is not None:
            found.append((here, last))
    return found


def beside(left: Sequence[str], right: Sequence[str], columns: int) -> list[str]:
    """Two pictures side by side, the right one from a column on."""
    count = max(len(left), len(right))
    padded = [*left, *[""] * (count - len(left))], [*right, *[""] * (count - len(right))]
    return [f"{a:<{columns}}{b}".rstrip() for a, b in zip(*padded, strict=True)]
