"""Follows the leader of a run under way, and knows from the journal how it was found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from riwoa.patience import BestEffort
from riwoa.run.history import Best
from riwoa.service.progress import improvement_view
from riwoa.service.status_object import ImprovementStatus
from riwoa_storage.overview import leader_found

_EVERY_S = 1.0


class LeaderWatch:
    """How the leader was found, looked up once for each: only the status shows it, so nothing waits for it.

    Args:
        journal: of the run.
        run_id: the run.
        leader: the best individual now.
        metric: that is optimised.
    """

    def __init__(self, journal: Path, run_id: int, leader: Callable[[], Best | None], metric: str) -> None:
        self.found: ImprovementStatus | None = None
        self._journal = journal
        self._run_id = run_id
        self._leader = leader
        self._metric = metric
        self._looking = BestEffort("how the leader was found")

    async def watch(self) -> None:
        """Once a second, until cancelled."""
        seen = None
        while True:
            leader = self._leader()
            if leader is not None and leader.origin != seen:
                await asyncio.to_thread(self._looking.attempt, partial(self._look, leader))
                seen = leader.origin if self._is_of(leader) else seen
            await asyncio.sleep(_EVERY_S)

    def _is_of(self, leader: Best) -> bool:
        return self.found is not None and self.found["generation"] == leader.generation

    def _look(self, leader: Best) -> None:
        as_json = leader.to_json()
        found = leader_found(self._journal, self._run_id, as_json)
        if found is not None:  # else its generation is not committed yet
            self.found = improvement_view(found, as_json, self._metric)
