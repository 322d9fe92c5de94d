"""Text for people: what came from outside made safe to show, and durations. ``riwoactl status`` imports this."""

from __future__ import annotations

TYPE_CHECKING = False  # recognised by mypy; spares slow imports
if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAST_COLUMNS = 20
# What a word of a metric's name says of its unit.
_UNITS = {"ms": "ms", "s": "s", "mj": "mJ", "j": "J", "mw": "mW", "w": "W", "kb": "kB", "mb": "MB", "gb": "GB"}


def printable(text: object, most: int = 500) -> str:
    """One bounded line without control characters, terminal escapes or marks that turn the direction of writing.

    White space becomes a blank, anything else that is not printable its escape, as ``repr`` writes it.
    """
    line = "".join(
        c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in str(text)[:most]
    )
    return line[:most]


def broken(line: str, columns: int, indent: int) -> list[str]:
    """A line in lines of so many columns, at blanks where there are any, all but the first indented.

    Without the indent where it would take more than half of them; never narrower than 20 columns.
    """
    columns = max(columns, _LEAST_COLUMNS)
    margin = " " * indent if columns >= 2 * indent else ""
    found, rest = [], line if margin else line.lstrip()
    while len(rest) > columns:
        at = rest.rfind(" ", len(margin) + 1, columns + 1)
        if at <= len(margin) or not rest[:at].strip():
            at = columns  # a word longer than a line
        found.append(rest[:at].rstrip())
        rest = margin + rest[at:].lstrip()
    return [*found, rest]


def duration(seconds: float) -> str:
    """A duration in at most two units: 1 h 02 min, 3 min 20 s, 12 s."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def number(value: float) -> str:
    """A number in at most six digits; a whole one with all of them, in groups of three."""
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.6g}"


def measured(metric: str, value: float) -> str:
    """A metric's value in the unit that its name says, such as ``energy_mj``; an accuracy in percent."""
    if metric == "accuracy":
        return f"{100 * value:.2f} %"
    unit = next((_UNITS[word] for word in metric.split("_")[1:] if word in _UNITS), "")
    return f"{number(value)} {unit}".rstrip()


def named_measure(metric: str, value: float) -> str:
    """What is optimised, with its name; an accuracy goes without."""
    return measured(metric, value) if metric == "accuracy" else f"{metric} {measured(metric, value)}"


def points(value: float, error: float) -> str:
    """A difference of accuracies in percentage points, with its standard error."""
    return f"{100 * value:+.2f} ± {100 * error:.2f}"


def against_float32(less: Mapping[str, float]) -> str:
    """How far 8 bits are from float32 on the same pictures."""
    return f"paired {points(less['value'], less['error'])} against float32"
