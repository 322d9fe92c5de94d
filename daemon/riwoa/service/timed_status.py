"""What the status tells of the winner by the clock. ``riwoactl status`` imports this: nothing here is slow to start."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from riwoa.service.status_object import TimedStatus


def timed_status(network: Mapping[str, Any], runtime: str | None, networks: int, note: str | None) -> TimedStatus:
    """Of a network as the event that timed it has it; what a damaged or older one lacks is None.

    Args:
        network: a ``riwoa.hardware.timed.TimedNetwork``.
        runtime: in which it was timed, in words.
        networks: that were timed.
        note: what people should know of it, in a line.
    """
    return {
        "latency_ms": network.get("ms") if network.get("is_clear") else None,
        "low_ms": network.get("low_ms"),
        "high_ms": network.get("high_ms"),
        "spread": network.get("spread"),
        "predicted_ms": network.get("predicted_ms"),
        "runtime": runtime,
        "networks": networks,
        "note": note or None,
    }
