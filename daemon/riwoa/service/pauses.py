"""Why the search, or a training, pauses, whoever wants it: a person, a measurement, or the governor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from riwoa.config.schema import Governor as GovernorSettings
from riwoa.service.governor import Governor
from riwoa.service.heartbeat import ProgressClock
from riwoa.service.state import searching_state
from riwoa.service.status import StatusBoard


class Pausable(Protocol):
    """A search with its workers, or a training."""

    @property
    def phase(self) -> str:
        """What it does: "search", "polish" or "training"."""

    def hold(self, held: bool) -> None:
        """Begin nothing more while held; evaluations under way end, a training saves its state."""


class Pauses:
    """Collects the reasons to pause, applies them to the search under way and shows them.

    Args:
        settings: the governor's levels in force, asked at each look.
        state_directory: whose disk the governor watches.
        board: where the pause is shown.
        progress: told when a pause ends, since nobody makes progress in one.
    """

    def __init__(
        self,
        settings: Callable[[], GovernorSettings],
        state_directory: Path,
        board: StatusBoard,
        progress: ProgressClock,
    ) -> None:
        self.governor = Governor(settings, state_directory, on_change=self.apply)
        self.search_has_begun = False  # since the daemon started
        self._own: dict[str, str] = {}
        self._search: Pausable | None = None
        self._free = asyncio.Event()
        self._free.set()
        self._board = board
        self._progress = progress

    @property
    def holds(self) -> dict[str, str]:
        """Why the search pauses, by what holds it; empty while it may go on."""
        return {**self._own, **self.governor.holds}

    def hold(self, by: str, reason: str) -> None:
        """Pause for this reason."""
        self._own[by] = reason
        self.apply()

    def release(self, by: str) -> None:
        """Pause no longer for the reason that ``by`` gave."""
        self._own.pop(by, None)
        self.apply()

    @property
    def phase(self) -> str | None:
        """What the search, or the training, under way does; None between them."""
        return None if self._search is None else self._search.phase

    async def wait_until_over(self) -> None:
        """Wait until nothing holds."""
        while not self._free.is_set():  # whoever waited may wake after the next pause has begun
            await self._free.wait()

    @contextlib.contextmanager
    def applied_to(self, search: Pausable) -> Iterator[None]:
        """Within the context, pauses hold this search; ``apply`` makes it begin with those that stand."""
        self._search, self.search_has_begun = search, True
        try:
            yield
        finally:
            self._search = None

    def apply(self) -> None:
        """Hold the search, or let it go on."""
        held = bool(self.holds)
        if held:
            self._free.clear()
        else:
            self._free.set()
        if self._search is not None:
            self._search.hold(held)
        if not held:
            self._progress.note()
        self.show()

    def show(self) -> None:
        """Show what the search does, or why it pauses."""
        self._board.change(lambda shown: searching_state(shown, self.holds, self.phase))
