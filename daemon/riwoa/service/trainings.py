"""Trainings of a daemon: child processes that pause as a search does, and end by the deadline with what they have.

A pause ends the process, whose state is saved: its memory is free meanwhile, and it continues where it was, on a
processor to the same bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from riwoa.ipc.job import JobLeftError, JobOrders, run_job
from riwoa.log import get_logger
from riwoa.service.pauses import Pauses

_log = get_logger("training")


class Trainings:
    """Runs trainings, one at a time.

    Args:
        pauses: hold them.
        cut_unix_s: when they are to end with what they have; None: when they are done.
        now_unix_s: the wall clock.
    """

    phase = "training"

    def __init__(
        self, pauses: Pauses, cut_unix_s: float | None = None, now_unix_s: Callable[[], float] = time.time
    ) -> None:
        self._pauses = pauses
        self._cut_unix_s = cut_unix_s
        self._now_unix_s = now_unix_s
        self._orders = JobOrders()

    def hold(self, held: bool) -> None:
        """Have the process save its state and leave; it is started again when nothing holds any more."""
        if held:
            self._orders.give("leave")

    async def run(
        self, module: str, arguments: list[str], threads: int, what: str, on_progress: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """As ``run_job``, through all pauses.

        Raises:
            RiwoaError: as ``run_job``.
        """

        def tell(event: dict[str, Any]) -> None:
            if not self._pauses.holds:  # a pause is what is to be shown
                on_progress({**event, "left_s": self._left_s(event["left_s"])})

        with self._pauses.applied_to(self):
            while True:
                self._pauses.show()
                await self._pauses.wait_until_over()
                self._orders = JobOrders()
                cut = asyncio.create_task(self._cut(self._orders), name="training-cut")
                try:
                    return await run_job(module, arguments, threads, what, tell, self._orders)
                except JobLeftError:
                    _log.info("training_paused", what=what)
                finally:
                    cut.cancel()

    def _left_s(self, told_s: float | None) -> float | None:
        """Seconds until it is done, or is to end."""
        if self._cut_unix_s is None:
            return told_s
        cut_s = max(0.0, self._cut_unix_s - self._now_unix_s())
        return cut_s if told_s is None else min(told_s, cut_s)

    async def _cut(self, orders: JobOrders) -> None:
        """Order the end when it is time."""
        if self._cut_unix_s is not None:
            await asyncio.sleep(max(0.0, self._cut_unix_s - self._now_unix_s()))
            _log.info("training_cut_short", reason="run.deadline")
            orders.give("finish")
