"""How far a latency by the device's table may lie from what a clock shows: told wherever a latency is.

The one number is the half width of the table's 90 % prediction interval, relative to the latency; 0.36 is ± 36 %. A
wide one comes from a machine that was busy while it was measured. Light: ``riwoactl status`` imports this.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from riwoa.hardware.lut import LatencyTable

UNKNOWN_INTERVAL = 0.10  # taken for a table's that has none
_WIDE = 0.10  # a quiet machine's are half of this


def interval_of(latency_table: Path, sha256: str | None) -> float | None:
    """The interval of the table that a run used; None where it is another's, is gone, or holds none."""
    table = _used(latency_table, sha256)
    return None if table is None or table.interval is None else table.interval.half_width_percent / 100


def measured_in(latency_table: Path, sha256: str | None) -> str:
    """Text that follows a table's name, such as " (onnxruntime 1.32, 1 thread)"; empty where it is not known."""
    from riwoa.hardware.runtime import spoken

    table = _used(latency_table, sha256)
    return "" if table is None else f" ({spoken(table.settings)})"


def _used(latency_table: Path, sha256: str | None) -> LatencyTable | None:
    """The table that a run used; None where another lies there, or none that can be read."""
    from riwoa.errors import TableError
    from riwoa.hardware.lut import LatencyTable

    try:
        table = LatencyTable.load(latency_table)
    except TableError:
        return None
    return table if table.sha256 == sha256 else None


def plus_minus(interval: float | None) -> str:
    """Text that follows a latency, such as " ± 36 %"; empty where no interval is known."""
    return "" if interval is None else f" ± {100 * interval:.0f} %"


def advice(interval: float | None) -> str:
    """What to do about a wide interval; empty where it is not wide, or not known."""
    if interval is None or interval <= _WIDE:
        return ""
    width = plus_minus(interval).strip()
    return f"{width} by this table: measured on a busy machine; `riwoactl lut build` on an idle one narrows it"
