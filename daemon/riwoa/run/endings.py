"""Why a run ends before its schedule: nothing is left to find, or its time is over. Journaled, and told in words."""

from __future__ import annotations

from collections.abc import Mapping

from riwoa.log import get_logger
from riwoa.run.existing import Existing
from riwoa.run.journal import RunJournal
from riwoa.search.fitness import Objective
from riwoa_storage.events import DeadlineReached, Event, SearchConverged, SpaceExhausted
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import Phase

_log = get_logger("conductor")


class Endings:
    """Finds that a search has nothing left to find, and says so; journals that a deadline has come.

    Args:
        journal: of the run.
        existing: what exists in its space, and what its last candidates brought.

    Attributes:
        reason: in plain words, for the end of the run; empty while there is more to find.
    """

    def __init__(self, journal: RunJournal, existing: Existing) -> None:
        self.reason = ""
        self._journal = journal
        self._existing = existing
        self._told: set[tuple[str, int | None]] = set()  # events of earlier lives, by kind and generation

    def restore(self, reader: JournalReader, objective: Objective, phase: Phase) -> None:
        """Stand where an earlier life was killed: what it said of the search is not said again.

        In the search, too: the end of the search is journaled before the polish commits anything.
        """
        events = reader.history.events(run_id=self._journal.run_id, kinds=["search_converged", "space_exhausted"])
        self._told = {(told.kind, told.event.generation) for told in events}
        if phase == "polish" and any(told.kind == "search_converged" for told in events):
            self.reason = _converged(objective)

    async def used_up(self, objective: Objective, counters: Mapping[str, int], generation: int, phase: Phase) -> bool:
        """Whether every architecture within the target is in committed generations; then that is journaled."""
        count = await self._existing.used_up(objective, counters)
        if count is None:
            return False
        self.reason = f"every architecture{_within(objective)} has been evaluated"
        run_id = self._journal.run_id
        event = SpaceExhausted(run_id=run_id, generation=generation, architectures=count, phase=phase)
        await self._put(event, "space_exhausted", architectures=count, phase=phase)
        return True

    async def converged(self, objective: Objective, generation: int) -> None:
        """Journal that the search proposes nothing new within the target any more."""
        if self.reason:
            return
        self.reason = _converged(objective)
        candidates = self._existing.idle
        event = SearchConverged(run_id=self._journal.run_id, generation=generation, candidates=candidates)
        await self._put(event, "search_converged", candidates=candidates)

    async def late(self, deadline: str | None, generation: int, phase: Phase) -> None:
        """Journal that the deadline has ended the run."""
        run_id = self._journal.run_id
        event = DeadlineReached(run_id=run_id, generation=generation, deadline=deadline, phase=phase)
        await self._journal.writer.put_event(event)
        _log.info("deadline_reached", phase=phase, generation=generation)

    async def _put(self, event: Event, name: str, **facts: object) -> None:
        if (name, event.generation) in self._told:
            return
        await self._journal.writer.put_event(event)
        _log.info(name, generation=event.generation, reason=self.reason, **facts)


def _converged(objective: Objective) -> str:
    return f"the search proposed nothing new{_within(objective)} any more"


def _within(objective: Objective) -> str:
    return "" if objective.limit is None else " within the target"
