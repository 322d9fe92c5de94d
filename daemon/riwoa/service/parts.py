"""What the parts of one daemon share from its start to its end."""

from __future__ import annotations

from dataclasses import dataclass

from riwoa.config.loading import Loaded
from riwoa.config.reload import Reloader
from riwoa.config.schema import Config
from riwoa.paths import StatePaths
from riwoa.service.heartbeat import Heartbeat, ProgressClock
from riwoa.service.pauses import Pauses
from riwoa.service.status import StatusBoard


@dataclass(frozen=True, slots=True)
class DaemonParts:
    """The objects that outlive a single search.

    Attributes:
        paths: of the state directory.
        loaded: the configuration that the daemon was started with.
        reloader: the configuration in force.
        board: the status.
        progress: when something last got done.
        pauses: why the search pauses.
        heartbeat: the watchdog.
        foreground: whether somebody looks on at a terminal.
    """

    paths: StatePaths
    loaded: Loaded
    reloader: Reloader
    board: StatusBoard
    progress: ProgressClock
    pauses: Pauses
    heartbeat: Heartbeat
    foreground: bool

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.reloader.config
