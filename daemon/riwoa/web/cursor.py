"""Where a page of a list ended: sorted by what, at which value, at which row."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass

from riwoa.errors import UsageError

_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page: the next one begins behind it, whatever was committed meanwhile.

    Attributes:
        order: of the list it belongs to.
        value: that the list is sorted by, of that row.
        number: of that row; it breaks ties.
    """

    order: str
    value: float
    number: int

    def __str__(self) -> str:
        content = json.dumps([self.order, self.value, self.number]).encode()
        return base64.urlsafe_b64encode(content).decode().rstrip("=")

    @staticmethod
    def parse(text: str | None, order: str) -> Cursor | None:
        """The cursor that a client gave back; None where it gave none.

        Raises:
            UsageError: it is none, or one of another list.
        """
        if text is None:
            return None
        try:
            if len(text) > _MOST_CHARACTERS:
                raise ValueError("too long")
            content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            of, value, number = json.loads(content)
            cursor = Cursor(str(of), float(value), int(number))
        except (ValueError, TypeError, binascii.Error, RecursionError, OverflowError):
            raise UsageError("cursor: give back what next_cursor was, or leave it out") from None
        if cursor.order != order or not math.isfinite(cursor.value) or abs(cursor.number) >= 2**62:
            raise UsageError("cursor: it belongs to another list; leave it out to begin anew")
        return cursor
