"""Text for people: what came from outside made safe to show, and durations. ``riwoactl status`` imports this."""

from __future__ import annotations


def printable(text: object, most: int = 500) -> str:
    """One bounded line without control characters, terminal escapes or marks that turn the direction of writing.

    White space becomes a blank, anything else that is not printable its escape, as ``repr`` writes it.
    """
    line = "".join(
        c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in str(text)[:most]
    )
    return line[:most]


def duration(seconds: float) -> str:
    """A duration in at most two units: 1 h 02 min, 3 min 20 s, 12 s."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
