"""Keeps the search going: again from where the journal stands while what ended it may mend, to the end of the run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from riwoa.errors import OracleError, RiwoaError
from riwoa.hardware.interval import interval_of
from riwoa.log import get_logger
from riwoa.patience import Backoff, is_transient
from riwoa.run.deadline import Overdue, overdue
from riwoa.service.ending import export_winner, exported_digest, finetune_winner, report_run
from riwoa.service.front_view import journaled_front, test_view, timed_view
from riwoa.service.parts import DaemonParts
from riwoa.service.progress import improvement_view
from riwoa.service.proof import JournalProof
from riwoa.service.tasks import run_until
from riwoa.service.views import finished_view
from riwoa.text import duration
from riwoa_storage.errors import StorageError
from riwoa_storage.events import DeadlineReached
from riwoa_storage.overview import leader_found
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, RunRecord
from riwoa_storage.writer import JournalWriter

_log = get_logger("service")
_SLICE_S = 5.0  # of a wait that a deadline may end


class SearchSession(Protocol):
    """One attempt to search to the end of the run."""

    @property
    def has_begun(self) -> bool:
        """Whether its run is in the journal."""

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Search to the end of the run."""


class Supervisor:
    """Runs one session after the other until the run is finished or something breaks for good.

    Args:
        parts: what outlives a session.
        journal: the writer.
        begin: makes a session; told whether it is to begin another run where one is unfinished.
        new_run: whether the first session is to do so.
        renew_before_unix_s: a finished run whose last commit is older is followed by another; 0 for none.
    """

    def __init__(
        self,
        parts: DaemonParts,
        journal: JournalWriter,
        begin: Callable[[bool], SearchSession],
        *,
        new_run: bool,
        renew_before_unix_s: float = 0.0,
    ) -> None:
        self._parts = parts
        self._board = parts.board
        self._governor = parts.pauses.governor
        self._journal = journal
        self._begin = begin
        self._new_run = new_run
        self._renew_before_unix_s = renew_before_unix_s

    async def run(self) -> None:
        """Search to the end of the run.

        Raises:
            RiwoaError, StorageError, OSError: what no waiting would mend; in the foreground whatever ended a session,
                for somebody looks on.
        """
        backoff = Backoff()
        self._governor.look()
        while True:
            started_s = time.monotonic()
            try:
                if await self._end_by_deadline() or await self._report_finished():
                    return
                if not await self._wait_for_governor():
                    continue  # the deadline came first
                started_s = time.monotonic()
                if await self._search():
                    return
                backoff.reset()
            except (RiwoaError, StorageError, OSError) as error:
                if self._parts.foreground or not (isinstance(error, OracleError) or is_transient(error)):
                    raise
                lasted_s = time.monotonic() - started_s
                await self._recover(error, backoff.wait_s(lasted_s, self._parts.reloader.newest.governor.retry_s))

    async def _search(self) -> bool:
        """One session; False when it was ended because the governor wants the workers' memory back."""
        session = self._begin(self._new_run)
        try:
            return await run_until(session.run, self._governor_unloads())
        finally:
            self._new_run = self._new_run and not session.has_begun

    async def _governor_unloads(self) -> None:
        await self._governor.until(lambda: self._governor.unloads)

    # -- waiting -------------------------------------------------------------------------------------------------------

    async def _wait_for_governor(self) -> bool:
        """Wait while the governor holds; False when the run's deadline came first."""
        waited = bool(self._governor.holds)
        while self._governor.holds:
            self._board.show("paused", "; ".join(self._governor.holds.values()))
            await self._governor.until(lambda: not self._governor.holds, _SLICE_S)
            if self._overdue() is not None:
                return False
        if waited:
            self._board.show("starting")
            self._parts.progress.note()
        return True

    async def _recover(self, error: Exception, wait_s: float) -> None:
        """Stay up and show what is wrong, until the next attempt or the run's deadline."""
        self._board.show("unhealthy", f"{error} (tried again every {duration(wait_s)})")
        _log.error("search_failed", reason=str(error), again_in_s=wait_s)
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0 and self._overdue() is None:  # noqa: ASYNC110 - a clock wakes nobody
            await asyncio.sleep(min(left_s, _SLICE_S))
        self._board.show("starting")
        self._parts.progress.note()

    # -- runs that end, or have ended, without a search ----------------------------------------------------------------

    def _overdue(self) -> Overdue | None:
        """The unfinished run, if its deadline has passed and it has an answer."""
        if self._new_run:
            return None
        try:
            return overdue(self._parts.paths.journal, time.time(), self._parts.reloader.newest.run)
        except StorageError as error:
            if not is_transient(error):
                raise
            return None  # asked again in a moment

    async def _end_by_deadline(self) -> bool:
        """End a run whose deadline has passed, from the journal alone: what it found needs no oracle to be exported."""
        late = self._overdue()
        if late is None:
            return False
        event = DeadlineReached(run_id=late.run.run_id, deadline=str(late.deadline), phase="not searching")
        await self._journal.put_event(event)
        await self._journal.finish_run(late.run.run_id)
        self._renew_before_unix_s = 0.0
        return await self._report_finished()

    async def _report_finished(self) -> bool:
        """Whether the latest run is finished and no other is to follow; then at most its export is missing."""
        if self._new_run:
            return False
        with JournalReader(self._parts.paths.journal) as reader:
            run = reader.latest_run()
            if run is None or run.status != "finished":
                return False
            last = reader.last_generation(run.run_id)
        if last is not None and self._is_of_another_night(last.committed_unix_s):
            return False
        await JournalProof(self._journal, self._parts.paths.journal).prove()
        not_exported = None
        if last is not None:
            self._show_finished(run, last)
            stale = exported_digest(self._parts.paths) != last.digest
            if stale:
                not_exported = await export_winner(self._parts)
            not_exported = await finetune_winner(self._parts) or not_exported
            if stale:
                await report_run(self._parts)
        said = not_exported or f"run {run.run_id} is finished; --new-run starts another"
        _log.info("finished_before", run=run.run_id, message=said)
        self._board.show("finished", said)
        return True

    def _show_finished(self, run: RunRecord, last: GenerationRecord) -> None:
        interval = interval_of(self._parts.paths.latency_table, run.provenance.get("latency_table_sha256"))
        front = journaled_front(self._parts.paths.journal, run.run_id)
        found, sources = finished_view(run, last, front.leader, interval, front.reached), self._board.sources
        sources.run = lambda: found.run
        sources.evaluations = lambda: found.evaluations
        sources.operators = lambda: found.operators
        sources.leader = lambda: found.leader
        sources.targets = lambda: found.targets
        if last.leader is not None and (how := leader_found(self._parts.paths.journal, run.run_id, dict(last.leader))):
            improvement = improvement_view(how, dict(last.leader), front.objective.raised)
            sources.improvement = lambda: improvement
        test, timed = test_view(front), timed_view(front)
        sources.test = lambda: test
        sources.timed = lambda: timed

    def _is_of_another_night(self, committed_unix_s: float) -> bool:
        """Before this night began; or after now, by a clock that was ahead."""
        renew_s = self._renew_before_unix_s
        return committed_unix_s < renew_s or 0.0 < renew_s < time.time() < committed_unix_s
