"""What the page asks of the daemon: its status, which many clients share, and its verbs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from anyio import CapacityLimiter, to_thread

from riwoa.errors import RiwoaError
from riwoa.service.status_object import StatusObject
from riwoa.web.journal import Journal
from riwoa.web.views import EventView
from riwoa_storage.errors import StorageError

T = TypeVar("T")

_FRESH_S = 1.0  # a status this young is told again
_TAIL = 50  # events that a stream begins with
_READERS = 2  # threads that read at once: a crowd of clients waits, and leaves the search its cores


class Daemon(Protocol):
    """The daemon, as its control socket has it; both methods block."""

    def status(self) -> StatusObject:
        """The status, also where the daemon does not run."""

    def ask(self, verb: str, by: str) -> Mapping[str, Any]:
        """Have a verb carried out for somebody; the answer."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The status and the newest events at one moment."""

    status: StatusObject
    status_json: str
    events: tuple[EventView, ...]  # oldest first


class Observer:
    """Looks at the daemon and the journal, at most once a second, however many ask."""

    def __init__(self, daemon: Daemon, journal: Journal) -> None:
        self._daemon = daemon
        self._journal = journal
        self._threads = CapacityLimiter(_READERS)
        self._lock = asyncio.Lock()
        self._seen: Snapshot | None = None
        self._seen_s = 0.0

    async def read(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do something that blocks in one of the few threads that there are for it."""
        return await to_thread.run_sync(work, *arguments, limiter=self._threads)

    async def snapshot(self) -> Snapshot:
        """What there is to see, not older than a second."""
        async with self._lock:
            if self._seen is None or time.monotonic() - self._seen_s >= _FRESH_S:
                self._seen = await self.read(self._look)
                self._seen_s = time.monotonic()
            return self._seen

    def _look(self) -> Snapshot:
        try:
            status = self._daemon.status()
        except (RiwoaError, StorageError) as error:  # told to whoever looks, who may wait for it to mend
            status = {"state": "unhealthy", "alive": False, "message": str(error)}
        try:
            events = self._journal.events(None, _TAIL).items[::-1] if self._journal.exists else ()
        except StorageError:  # the status says what is wrong with it
            events = ()
        return Snapshot(status, json.dumps(status), events)

    async def ask(self, verb: str, by: str) -> Mapping[str, Any]:
        """Have the daemon carry out a verb.

        Raises:
            RiwoaError: it does not run, does not answer, or refuses.
        """
        answer = await self.read(self._daemon.ask, verb, by)
        self._seen = None  # what it did is seen at once
        return answer
