"""What the parts of one daemon share from its start to its end."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from riwoa.config.loading import Loaded
from riwoa.config.reload import Reloader
from riwoa.config.schema import Config
from riwoa.paths import StatePaths
from riwoa.service.heartbeat import Heartbeat, ProgressClock
from riwoa.service.notify import Notifier
from riwoa.service.pauses import Pauses
from riwoa.service.status import StatusBoard
from riwoa.service.views import governor_view


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

    @classmethod
    def assemble(
        cls, paths: StatePaths, loaded: Loaded, overrides: Sequence[str], notifier: Notifier, *, foreground: bool
    ) -> DaemonParts:
        """The parts of a daemon that has just started.

        Args:
            paths: of the state directory.
            loaded: the configuration.
            overrides: the command line's ``--set`` values, for reloads.
            notifier: to systemd.
            foreground: whether somebody looks on at a terminal.
        """
        go_on = start_command(paths, loaded, overrides, foreground=foreground)
        board = StatusBoard(paths.status, paths.state, go_on)
        progress, reloader = ProgressClock(), Reloader(loaded, overrides)
        pauses = Pauses(lambda: reloader.newest.governor, paths.state, board, progress)
        heartbeat = Heartbeat(board, notifier, progress, lambda: pauses.holds, lambda: reloader.config)
        board.sources.governor = lambda: governor_view(pauses.governor)
        return cls(paths, loaded, reloader, board, progress, pauses, heartbeat, foreground)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.reloader.config


def start_command(paths: StatePaths, loaded: Loaded, overrides: Sequence[str], *, foreground: bool) -> str:
    """The command line that continues this daemon's run, from any directory; of a service, systemd's."""
    if os.environ.get("NOTIFY_SOCKET"):
        return "systemctl start riwoa"
    beside = Path(sys.executable).with_name("riwoad")
    program = "riwoad" if shutil.which("riwoad") or not beside.exists() else str(beside)
    config = [] if loaded.file is None else ["--config", os.path.abspath(loaded.file)]
    settings = [part for setting in overrides for part in ("--set", setting)]
    return shlex.join(
        [program, *(["--foreground"] if foreground else []), "--state", paths.directory, *config, *settings]
    )
