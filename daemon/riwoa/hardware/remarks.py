"""What to tell a person of a latency table: another library than today's, 8 bits that do not pay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riwoa.hardware.runtime import INT8, runtime_of

if TYPE_CHECKING:
    from riwoa.hardware.lut import LatencyTable

INT8_WORTH = "int8_over_float32"  # in a table's notes
_ALIKE = 0.03


def remarks(table: LatencyTable) -> list[str]:
    """What to tell a person of a table, a line each with what to do; empty where there is nothing."""
    return [text for text in (_version_words(table), _int8_words(table)) if text]


def _int8_words(table: LatencyTable) -> str:
    """What 8 bits are worth on the table's device; empty for a table in float32."""
    ratio = table.notes.get(INT8_WORTH) if table.settings.dtype == INT8 else None
    if not isinstance(ratio, int | float):
        return ""
    found = f"in int8 networks of this space take {ratio:.2f} times as long as in float32 on this device"
    if ratio > 1 + _ALIKE:
        return f'{found}: slower, and less accurate; latency.precision = "float32" serves you better here'
    return f"{found}: {'no gain' if ratio > 1 - _ALIKE else 'faster'}"


def _version_words(table: LatencyTable) -> str:
    there, here = table.settings.runtime_version, runtime_of(table.settings).version
    if there in ("", here) or not here:
        return ""
    return (
        f"the latency table is of {table.settings.runtime} {there}, and {here} is installed: its latencies may be off; "
        "`riwoactl lut check` tells, `riwoactl lut build` measures anew"
    )
