"""What the daemon is doing: one word and the sentence that goes with it, always set together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

State = Literal[
    "starting",  # reading, verifying, starting processes; or a search that is about to begin
    "training",  # the supernet that is to be searched, or at the end its winner
    "measuring",  # the operators of this device
    "running",  # the search
    "polishing",  # the local search after it
    "paused",
    "exporting",
    "finished",
    "stopped",  # on request
    "unhealthy",  # it waits until what failed may work again, or has given up
]
_SEARCHING: frozenset[State] = frozenset(("starting", "training", "running", "polishing", "paused"))


@dataclass(frozen=True, slots=True)
class DaemonState:
    """The state and its message for people; the message is empty where the state says it all."""

    state: State
    message: str = ""

    def saying(self, message: str) -> DaemonState:
        """The same state with another message."""
        return replace(self, message=message)


def searching_state(shown: DaemonState, holds: Mapping[str, str], phase: str | None) -> DaemonState:
    """The state of a search or a training under way, or of one about to begin; any other state stays as it is.

    Args:
        shown: the state so far.
        holds: why the search pauses, by what holds it; empty while it may go on.
        phase: the conductor's ("search" or "polish"), or "training"; None while there are no workers yet.
    """
    if shown.state not in _SEARCHING:
        return shown
    if holds:
        return DaemonState("paused", "; ".join(holds.values()))
    if shown.state == "starting" or (shown.state, phase) == ("training", "training"):
        return shown
    if phase == "training":
        return DaemonState("training")
    if phase is None:  # a pause is over, the workers are still to come
        return DaemonState("starting")
    return DaemonState("polishing" if phase == "polish" else "running")
