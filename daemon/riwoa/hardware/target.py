"""The latency target that ``objective.latency_ms = "auto"`` stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from riwoa.hardware.lut import LatencyTable


def auto_target_ms(table: LatencyTable, resolutions: Sequence[int] | None = None) -> float:
    """The geometric mean of the least and the greatest attainable latency: reachable, and never for free.

    Raises:
        TableError: an operator was not measured.
    """
    least_ms, greatest_ms = table.range_ms(resolutions)
    return math.sqrt(least_ms * greatest_ms)
