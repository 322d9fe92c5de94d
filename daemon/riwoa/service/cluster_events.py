"""What a cluster did that is worth keeping, on its way into the journal."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from riwoa.log import get_logger
from riwoa_storage.errors import StorageError
from riwoa_storage.events import Event
from riwoa_storage.writer import JournalWriter

_log = get_logger("cluster")


class ClusterEvents:
    """Journals events in the order in which they are told; whoever tells does not wait.

    They are outside a run's digest: which evaluation was slow is decided by a clock.
    """

    def __init__(self, journal: JournalWriter) -> None:
        self._journal = journal
        self._last: asyncio.Task[None] | None = None
        self.run_id: int | None = None

    def tell(self, event: Event) -> None:
        """Have an event written."""
        before, self._last = self._last, None
        self._last = asyncio.create_task(self._write(replace(event, run_id=self.run_id), before), name="cluster event")

    async def written(self) -> None:
        """Wait for those that were told."""
        if self._last is not None:
            await asyncio.wait({self._last})

    async def _write(self, event: Event, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            await self._journal.put_event(event)
        except StorageError as error:  # the search itself meets it, too, and says so
            _log.warning("cluster_event_not_journaled", reason=str(error))
