"""Checks now and then whether the device still runs as its latency table says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from riwoa.config.schema import Latency
from riwoa.errors import RiwoaError
from riwoa.hardware.drift import Drift, check_drift_in_child
from riwoa.log import get_logger
from riwoa.oracle.protocol import BackendStats
from riwoa.service.pauses import Pauses
from riwoa.service.status import StatusBoard
from riwoa.service.views import latency_view
from riwoa_storage.errors import StorageError
from riwoa_storage.events import LatencyDrift
from riwoa_storage.writer import JournalWriter

_log = get_logger("service")
_LOOK_EVERY_S = 1.0
_BUSY_EVERY_S = 0.2


class DriftWatch:
    """Pauses the search, measures, and tells what was found; it changes nothing, for a run has one table.

    Args:
        table: the file of this device's latency table.
        run_id: whose events tell the outcome.
        journal: where they are told.
        board: where the last outcome is shown.
        pauses: holds the search during a measurement; nothing is measured while it pauses for another reason.
        workers: what the worker processes do; a measurement waits until none is busy.
        settings: the configuration in force.
        check: measures the table's sentinels.
    """

    def __init__(
        self,
        table: Path,
        run_id: int,
        journal: JournalWriter,
        board: StatusBoard,
        pauses: Pauses,
        workers: Callable[[], BackendStats],
        settings: Callable[[], Latency],
        check: Callable[[Path], Awaitable[Drift]] = check_drift_in_child,
    ) -> None:
        self._table = table
        self._run_id = run_id
        self._journal = journal
        self._board = board
        self._pauses = pauses
        self._workers = workers
        self._settings = settings
        self._check = check

    async def watch(self) -> None:
        """Check every ``latency.drift_every_s`` seconds, until cancelled."""
        since_s = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            every_s = self._settings().drift_every_s
            if every_s is None or time.monotonic() - since_s < every_s or self._pauses.holds:
                continue
            await self.measure()
            since_s = time.monotonic()

    async def measure(self) -> None:
        """Check once, with the search paused; what goes wrong is logged and no more."""
        self._pauses.hold("drift", "measuring whether the latency table still holds")
        try:
            while any(w.state == "busy" for w in self._workers().workers):  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(_BUSY_EVERY_S)
            await self._tell(await self._check(self._table))
        except (RiwoaError, StorageError, OSError) as error:
            _log.warning("drift_not_checked", reason=str(error))
        finally:
            self._pauses.release("drift")

    async def _tell(self, drift: Drift) -> None:
        now_unix_s = time.time()
        view = latency_view(drift, now_unix_s)
        self._board.sources.latency = lambda: view
        write = _log.warning if drift.affects else _log.info
        write("latency_drift", verdict=drift.verdict, networks=round(drift.networks, 3), affects=list(drift.affects))
        await self._journal.put_event(LatencyDrift(**drift.to_json(), run_id=self._run_id, created_unix_s=now_unix_s))
