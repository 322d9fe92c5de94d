"""Charts as inline SVG: lines, bands, points with error bars, bars; light and dark by the page's style sheet.

A writer of our own, and a small one. matplotlib is 30 MB that a Raspberry Pi needs for nothing else; pygal brings its
own style sheet and a script's address into every chart, and has neither error bars nor bands; leather has no marks and
no tooltips. The standard library's ElementTree writes the elements and escapes every text; what is left for us is where
things go. Each mark says in a ``<title>`` what it is, which browsers show as a tooltip without a script.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from riwoa.text import printable

# A chart is as wide as a phone and grows with its column: its letters stay legible on both.
WIDTH, HEIGHT = 400, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 26, 42
_TICKS = 5
_LETTER = 7.2  # user units of a letter, for the room that a label needs
Number = Callable[[float], str]


def plain(value: float) -> str:
    """A number in at most three digits, grouped."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Axis:
    """What a direction of a chart means, from where to where; ``spoken`` writes a tick."""

    label: str
    low: float
    high: float
    spoken: Number = plain

    @classmethod
    def around(cls, label: str, values: Sequence[float], spoken: Number = plain, *, pad: float = 0.04) -> Axis:
        """An axis that holds these values with a little room."""
        known = [v for v in values if math.isfinite(v)] or [0.0]
        low, high = min(known), max(known)
        room = pad * (high - low) or abs(high) * pad or 1.0
        return cls(label, low - room, high + room, spoken)

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1; what lies beyond them is drawn at the end."""
        return min(1.0, max(0.0, (value - self.low) / ((self.high - self.low) or 1.0)))

    @property
    def ticks(self) -> list[float]:
        """Round numbers between the ends, a handful."""
        span = (self.high - self.low) or 1.0
        power = 10.0 ** math.floor(math.log10(span / _TICKS))
        step = next(power * m for m in (1, 2, 2.5, 5, 10, 20) if span / (power * m) <= _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


class Plot:
    """A chart with two axes, to which marks are added.

    Args:
        title: what it shows, for those who cannot see it.
        x: the axis below.
        y: the axis at the left.
        framed: with grid and labels; ``frame_rows`` draws others.
    """

    def __init__(self, title: str, x: Axis, y: Axis, *, framed: bool = True) -> None:
        self._x, self._y, self._left = x, y, _LEFT
        view = f"0 0 {WIDTH} {HEIGHT}"
        self._root = ElementTree.Element("svg", {"viewBox": view, "role": "img", "aria-label": printable(title, 300)})
        if framed:
            self._frame()

    def __str__(self) -> str:
        return ElementTree.tostring(self._root, encoding="unicode")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pair of values is drawn."""
        across, down = WIDTH - self._left - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return self._left + across * self._x.share(x), _TOP + down * (1 - self._y.share(y))

    def shows(self, y: float) -> bool:
        """Whether a value lies within the axis at the left."""
        return self._y.low <= y <= self._y.high

    def line(self, points: Sequence[tuple[float, float]], kind: str, told: str = "", *, stepped: bool = False) -> None:
        """Join points; ``stepped`` where a value holds until the next."""
        if not points:
            return
        path: list[str] = []
        for index, point in enumerate(points):
            x, y = self.at(*point)
            path.append(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" if not (stepped and index) else f"H{x:.1f}V{y:.1f}")
        self._add("path", told, {"class": f"line {kind}", "d": "".join(path)})

    def band(self, points: Sequence[tuple[float, float, float]], kind: str, told: str = "") -> None:
        """Fill between a lower and an upper line: (x, low, high)."""
        there = [self.at(x, high) for x, _, high in points]
        back = [self.at(x, low) for x, low, _ in reversed(points)]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*there, *back))
        self._add("polygon", told, {"class": f"band {kind}", "points": corners})

    def dot(self, x: float, y: float, kind: str, told: str = "", *, radius: float = 2.5) -> None:
        """A point."""
        cx, cy = self.at(x, y)
        self._add("circle", told, {"class": f"dot {kind}", "cx": f"{cx:.1f}", "cy": f"{cy:.1f}", "r": f"{radius:g}"})

    def sign(self, x: float, y: float, kind: str, told: str, *, radius: float = 4.0) -> None:
        """A diamond (of the winner) or a square: told from points by its form, not by its colour alone."""
        (cx, cy), r = self.at(x, y), radius
        diamond = f"M{cx:.1f} {cy - r:.1f}l{r:g} {r:g}l-{r:g} {r:g}l-{r:g} -{r:g}Z"
        square = f"M{cx - r:.1f} {cy - r:.1f}h{2 * r:g}v{2 * r:g}h-{2 * r:g}Z"
        self._add("path", told, {"class": f"dot {kind}", "d": diamond if kind == "winner" else square})

    def note(self, x: float, y: float, words: str, *, above: float = 7.0) -> None:
        """Words above a point (below for a negative distance), kept inside the picture."""
        (px, py), half = self.at(x, y), _LETTER * len(words) / 2
        self.text(min(max(px, self._left + half), WIDTH - half), py - above, words, "middle", "label")

    def whisker(self, x: float, low: float, high: float, kind: str) -> None:
        """An error bar."""
        (px, top), (_, bottom) = self.at(x, high), self.at(x, low)
        ends = f"M{px:.1f} {top:.1f}V{bottom:.1f}M{px - 3:.1f} {top:.1f}h6M{px - 3:.1f} {bottom:.1f}h6"
        self._add("path", "", {"class": f"whisker {kind}", "d": ends})

    def upright(self, x: float, kind: str, told: str) -> None:
        """A line across the chart at an x, with a broad invisible one that a pointer finds."""
        (px, top), (_, bottom) = self.at(x, self._y.high), self.at(x, self._y.low)
        group = self._add("g", told, {"class": f"mark {kind}"})
        for width in ("mark-line", "mark-hold"):
            ElementTree.SubElement(group, "path", {"class": width, "d": f"M{px:.1f} {top:.1f}V{bottom:.1f}"})

    def label_upright(self, x: float, words: str) -> None:
        """Words at the top of such a line, on the side where there is more room."""
        px, left = self.at(x, self._y.high)[0], self._left + (WIDTH - _RIGHT - self._left) / 2
        self.text(px - 4 if px > left else px + 4, _TOP - 4, words, "end" if px > left else "start")

    def text(self, x: float, y: float, words: str, anchor: str = "start", kind: str = "tick") -> None:
        """Words at a place of the picture."""
        where = {"class": kind, "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
        ElementTree.SubElement(self._root, "text", where).text = printable(words, 200)

    def reach(self, low: float, high: float, row: float, kind: str) -> None:
        """A line along a row, as an interval."""
        (left, y), (right, _) = self.at(low, row), self.at(high, row)
        self._add("path", "", {"class": f"reach {kind}", "d": f"M{left:.1f} {y:.1f}H{right:.1f}"})

    def frame_rows(self, names: Sequence[str]) -> None:
        """Label rows in the place of an axis at the left, the first at the top; the axis below as always."""
        self._left = min(WIDTH // 2, 16 + max(int(_LETTER * len(name)) for name in names))
        for row, name in enumerate(reversed(names)):
            self.text(self._left - 8, self.at(0, row)[1] + 4, name, "end")
        self._frame_below()

    def _frame(self) -> None:
        for value in self._y.ticks:
            (left, y), (right, _) = self.at(self._x.low, value), self.at(self._x.high, value)
            self._add("path", "", {"class": "grid", "d": f"M{left:.1f} {y:.1f}H{right:.1f}"})
            self.text(left - 5, y + 4, self._y.spoken(value), "end")
        self.text(4, 14, self._y.label, kind="label")
        self._frame_below()

    def _frame_below(self) -> None:
        bottom, end = HEIGHT - _BOTTOM, -math.inf
        for value in self._x.ticks:
            x, words = self.at(value, self._y.low)[0], self._x.spoken(value)
            half = _LETTER * len(words) / 2
            if x - half > end:  # no label runs into the one before it
                self.text(min(x, WIDTH - half), bottom + 15, words, "middle")
                end = x + half + _LETTER
        middle, room = (self._left + WIDTH - _RIGHT) / 2, _LETTER * len(self._x.label) / 2
        self.text(min(middle, WIDTH - room), HEIGHT - 6, self._x.label, "middle", "label")

    def _add(self, tag: str, told: str, attributes: dict[str, str]) -> ElementTree.Element:
        element = ElementTree.SubElement(self._root, tag, attributes)
        if told:
            ElementTree.SubElement(element, "title").text = printable(told, 300)
        return element


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a strip: its length, its name below, which bars in a row share, and its tooltip."""

    length: float
    name: str
    told: str
    kind: str


def strip(title: str, bars: Sequence[Bar], height: int = 84) -> str:
    """Bars side by side whose widths are to scale, as the layers of a network in the order in which they run."""
    view = {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": printable(title, 300)}
    root = ElementTree.Element("svg", view)
    unit, x, base = (WIDTH - 2) / (sum(bar.length for bar in bars) or 1.0), 1.0, height - 20
    for index, bar in enumerate(bars):
        width = bar.length * unit
        last = index + 1 == len(bars) or bars[index + 1].name != bar.name  # of a stage: a wider gap follows
        place = {"x": f"{x:.2f}", "y": "1", "width": f"{max(0.5, width - (4 if last else 1)):.2f}"}
        element = ElementTree.SubElement(root, "rect", {**place, "height": f"{base - 2}", "class": f"bar {bar.kind}"})
        ElementTree.SubElement(element, "title").text = printable(bar.told, 300)
        x += width
    _name_runs(root, bars, unit, height)
    return ElementTree.tostring(root, encoding="unicode")


def _name_runs(root: ElementTree.Element, bars: Sequence[Bar], unit: float, height: int) -> None:
    """Write each name once, below the bars in a row that share it; its number alone where there is little room."""
    x = start = 1.0
    for index, bar in enumerate(bars):
        x += bar.length * unit
        if index + 1 < len(bars) and bars[index + 1].name == bar.name:
            continue
        words, last = bar.name, bar.name.rpartition(" ")[2]
        if x - start < _LETTER * len(words) and last.isdigit():
            words = last
        if x - start >= _LETTER * len(words):
            where = {"class": "tick", "x": f"{(x + start) / 2:.1f}", "y": f"{height - 4}", "text-anchor": "middle"}
            ElementTree.SubElement(root, "text", where).text = printable(words, 40)
        start = x
