"""What a table was measured with that a person should know: another library than today's, 8 bits that do not pay."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from riwoa.hardware.runtime import FLOAT32, INT8, Runtime, runtime_of

if TYPE_CHECKING:
    from riwoa.hardware.lut import LatencyTable
    from riwoa.supernet.geometry import Backbone
    from riwoa.supernet.space import OfaConfig

INT8_WORTH = "int8_over_float32"  # in a table's notes
_COMPARED = 6  # networks
_VISITS = 5
_ALIKE = 0.03


def int8_over_float32(configs: Sequence[OfaConfig], backbone: Backbone, runtime: Runtime) -> float:
    """How many times as long as in float32 networks take in 8 bits here: the median of some, spread over the given."""
    from riwoa.hardware.bench import thread_count
    from riwoa.hardware.onnx_clock import OnnxClock, network_items

    some = configs[:: max(1, len(configs) // _COMPARED)][:_COMPARED]
    clock = OnnxClock(runtime)
    pairs = zip(*(network_items(some, backbone, 1, precision) for precision in (INT8, FLOAT32)), strict=True)
    with thread_count(runtime.threads):
        ratios = []
        for pair in pairs:
            visits = [[clock.network_ms(item) for item in pair] for _ in range(_VISITS)]
            small, large = map(min, zip(*visits, strict=True))
            ratios.append(small / large)
    return float(statistics.median(ratios))


def remarks(table: LatencyTable) -> list[str]:
    """What to tell a person of a table, a line each with what to do; empty where there is nothing."""
    return [text for text in (_another_version(table), worth(table)) if text]


def worth(table: LatencyTable) -> str:
    """What 8 bits are worth on the table's device; empty for a table in float32."""
    ratio = table.notes.get(INT8_WORTH) if table.settings.dtype == INT8 else None
    if not isinstance(ratio, int | float):
        return ""
    found = f"in int8 networks of this space take {ratio:.2f} times as long as in float32 on this device"
    if ratio > 1 + _ALIKE:
        return f'{found}: slower, and less accurate; latency.precision = "float32" serves you better here'
    return f"{found}: {'no gain' if ratio > 1 - _ALIKE else 'faster'}"


def _another_version(table: LatencyTable) -> str:
    there, here = table.settings.runtime_version, runtime_of(table.settings).version
    if there in ("", here) or not here:
        return ""
    return (
        f"the latency table is of {table.settings.runtime} {there}, and {here} is installed: its latencies may be off; "
        "`riwoactl lut check` tells, `riwoactl lut build` measures anew"
    )
