"""Trainings of a daemon: child processes that pause as a search does, and end by the deadline with what they have.

A pause ends the process, whose state is saved: its memory is free meanwhile, and it continues where it was, on a
processor to the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from riwoa.ipc.job import JobLeftError, JobOrders, run_job
from riwoa.log import get_logger
from riwoa.service.pauses import Pauses
from riwoa.service.tasks import stop_task

_log = get_logger("training")


class Trainings:
    """Runs trainings, one at a time.

    Args:
        pauses: hold them.
        cut_unix_s: when they are to end with what they have; None: when they are done.
    """

    phase = "training"

    def __init__(self, pauses: Pauses, cut_unix_s: float | None = None) -> None:
        self._pauses = pauses
        self._cut_unix_s = cut_unix_s
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
                with contextlib.suppress(TimeoutError):  # it ends by then with what it has, paused or not
                    await asyncio.wait_for(self._pauses.wait_until_over(), self._until_cut_s())
                self._orders = JobOrders()
                cut = asyncio.create_task(self._cut(self._orders), name="training-cut")
                try:
                    return await run_job(module, arguments, threads, what, tell, self._orders)
                except JobLeftError:
                    _log.info("training_paused", what=what)
                finally:
                    await stop_task(cut)

    def _left_s(self, told_s: float | None) -> float | None:
        """Seconds until it is done, or is to end."""
        known_s = [seconds for seconds in (told_s, self._until_cut_s()) if seconds is not None]
        return min(known_s, default=None)

    def _until_cut_s(self) -> float | None:
        return None if self._cut_unix_s is None else max(0.0, self._cut_unix_s - time.time())

    async def _cut(self, orders: JobOrders) -> None:
        """Order the end when it is time."""
        if (until_s := self._until_cut_s()) is not None:
            await asyncio.sleep(until_s)
            _log.info("training_cut_short", reason="run.deadline")
            orders.give("finish")
