"""Text that came from outside (names in data, lines of children, answers), made safe to show. Light: status uses it."""

from __future__ import annotations


def printable(text: object, most: int = 500) -> str:
    """One bounded line without control characters, terminal escapes or marks that turn the direction of writing.

    White space becomes a blank, anything else that is not printable its escape, as ``repr`` writes it.
    """
    line = "".join(
        c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in str(text)[:most]
    )
    return line[:most]
