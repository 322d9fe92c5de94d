"""What each verb of the control socket does: ``riwoactl status | pause | resume | stop | reload``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from riwoa.config.outcome import Outcome
from riwoa.config.reload import Reloader
from riwoa.errors import DaemonUnavailableError
from riwoa.service.control import Handler
from riwoa.service.pauses import Pauses
from riwoa.service.status import StatusBoard

HARMLESS = frozenset({"status"})  # verbs that change nothing
_PERSON = "person"  # whose pause it is


class Verbs:
    """The handlers of the control socket.

    Args:
        board: the status.
        pauses: where a person's pause is entered.
        reloader: reads the configuration file.
        stopping: set to end the daemon.
    """

    def __init__(self, board: StatusBoard, pauses: Pauses, reloader: Reloader, stopping: asyncio.Event) -> None:
        self._board = board
        self._pauses = pauses
        self._reloader = reloader
        self._stopping = stopping

    def handlers(self) -> dict[str, Handler]:
        """The handler of each verb."""
        return {
            "status": self.status,
            "pause": self.pause,
            "resume": self.resume,
            "stop": self.stop,
            "reload": self.reload,
            "reload --partial": self.reload_partial,
        }

    async def status(self) -> Mapping[str, Any]:
        """The status object."""
        return {"status": self._board.look()}

    async def pause(self) -> Mapping[str, Any]:
        """Pause the search, or a training, until ``resume``.

        Raises:
            DaemonUnavailableError: there is no search yet.
        """
        self._require_search()
        self._pauses.hold(_PERSON, "by riwoactl pause")
        first = "the training saves its state" if self._pauses.phase == "training" else "evaluations under way end"
        return {"message": f"pausing; {first} first"}

    async def resume(self) -> Mapping[str, Any]:
        """End the pause that ``pause`` began; the search may still pause for other reasons.

        Raises:
            DaemonUnavailableError: there is no search yet.
        """
        self._require_search()
        self._pauses.release(_PERSON)
        held = "; ".join(self._pauses.holds.values())
        return {"message": f"still paused: {held}" if held else self._going_on}

    async def stop(self) -> Mapping[str, Any]:
        """End the daemon."""
        self._stopping.set()
        return {"message": "stopping; everything committed stays"}

    async def reload(self) -> Mapping[str, Any]:
        """Read the configuration file again; all of it applies, or none.

        Raises:
            RiwoaError: the file is bad, or changes what a run cannot change; the old configuration stays in force.
        """
        return _told(await self._reloader.reload_aside())

    async def reload_partial(self) -> Mapping[str, Any]:
        """Read the configuration file again, and apply what of it may change in a run.

        Raises:
            RiwoaError: the file is bad; the old configuration stays in force.
        """
        return _told(await self._reloader.reload_aside(partial=True))

    @property
    def _going_on(self) -> str:
        return "training on" if self._pauses.phase == "training" else "searching on"

    def _require_search(self) -> None:
        if not self._pauses.search_has_begun:
            raise DaemonUnavailableError("the search has not begun yet; try again in a moment")


def _told(outcome: Outcome) -> Mapping[str, Any]:
    return {
        "message": outcome.sentence,
        "applied_next_generation": sorted(outcome.accepted),
        "needs_restart": sorted(outcome.refused),
    }
