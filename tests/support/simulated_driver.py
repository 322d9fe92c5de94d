"""The driver with a thousand workers that are none: evaluations are waits in its own event loop, and Ray is not asked.

What remains is what one conductor and one driver do for each evaluation, but for Ray's own part of a call.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from riwoa.ipc.frames import ParentPipe
from riwoa.oracle.ray_driver import Driver
from riwoa.oracle.ray_nodes import Node
from riwoa.oracle.ray_placement import Placer
from riwoa.oracle.ray_slots import Slot


class _Method:
    def __init__(self, call: Any) -> None:
        self.remote = call


class _Worker:
    """As an actor's handle; it waits as long as an architecture says."""

    def __init__(self) -> None:
        self.evaluate = _Method(self._evaluate)
        self.cancel = self.set_limits = _Method(lambda *_, **__: None)

    async def _evaluate(self, job_id: str, architecture: dict[str, Any], how: dict[str, Any]) -> dict[str, Any]:
        seconds = architecture["seconds"]
        await asyncio.sleep(seconds)
        ended = {"status": "ok", "reason": None, "attempts": 1, "duration_s": seconds, "correct": ""}
        return {"job_id": job_id, "metrics": {"accuracy": 0.5}, "pid": 1, **ended}


class SimulatedPlacer(Placer):
    """Every slot has a worker at once, ten on each node."""

    async def look(self) -> None:
        self.nodes = {f"{i}": Node(f"{i}", f"node-{i}", "10.0.0.1", 10.0, 0.0, {}) for i in range(100)}

    async def watch(self, slots: Sequence[Slot]) -> None:
        await asyncio.Event().wait()

    async def place(self, slot: Slot) -> None:
        slot.actor, slot.node = _Worker(), self.nodes[f"{slot.index // 10}"]
        self._accept(slot.node, {"oracle_version": "simulated", "threads": 1, "load_s": 0.0})


def main() -> int:
    pipe = ParentPipe()
    frame = pipe.frame()

    async def serve() -> None:
        await Driver(pipe, frame, SimulatedPlacer).run()

    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
