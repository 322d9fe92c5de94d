"""Signs of life: the status for systemd and in status.json, and the watchdog's ping while there is progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from riwoa.config.schema import Config
from riwoa.oracle.workers import pool_settings
from riwoa.patience import BestEffort
from riwoa.service.notify import Notifier
from riwoa.service.status import StatusBoard, one_line

_EVERY_S = 1.0
_WRITE_EVERY_S = 15.0
_SLACK_S = 60.0


class ProgressClock:
    """When something was last evaluated, answered, measured, read or verified."""

    def __init__(self) -> None:
        self._noted_s = time.monotonic()

    def note(self) -> None:
        """Something has just got done. May be called from any thread."""
        self._noted_s = time.monotonic()

    def idle_s(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._noted_s


class Heartbeat:
    """Shows that the daemon lives, and pings systemd's watchdog as long as the search makes progress.

    Args:
        board: the status.
        notifier: to systemd.
        progress: when the search last got something done.
        holds: why the search pauses; nobody expects progress of one that does.
        config: the configuration in force.
    """

    def __init__(
        self,
        board: StatusBoard,
        notifier: Notifier,
        progress: ProgressClock,
        holds: Callable[[], Mapping[str, str]],
        config: Callable[[], Config],
    ) -> None:
        self.training: Callable[[], bool] = lambda: False  # whether the language model is being trained
        self._board = board
        self._notifier = notifier
        self._progress = progress
        self._holds = holds
        self._config = config

    async def beat(self) -> None:
        """Once a second, until cancelled: status.json, systemd's status line, and the watchdog."""
        interval_s = self._notifier.watchdog_interval_s
        telling = BestEffort("systemd's status")
        written, written_s = "", 0.0
        while True:
            state = self._board.shown.state
            # Commits write it too; between them a flash card is spared.
            if state != written or time.monotonic() - written_s >= _WRITE_EVERY_S:
                written, written_s = state, time.monotonic()
                self._board.write()
            telling.attempt(lambda: self._notifier.status(one_line(self._board.look())))
            if interval_s is not None and not self.stalled():
                self._notifier.watchdog()
            await asyncio.sleep(min(_EVERY_S, interval_s / 3 if interval_s else _EVERY_S))

    def stalled(self) -> bool:
        """Whether nothing got done for longer than any single piece of work may take."""
        state, config = self._board.shown.state, self._config()
        if state == "unhealthy" or self._holds():  # waiting on purpose
            return False
        patience_s = 2 * config.oracle.timeout_s + config.cognition.timeout_s + _SLACK_S
        if state in ("starting", "training"):  # a folder of pictures is decoded once
            patience_s += pool_settings(config.oracle).start_timeout_s
        if self.training():
            patience_s += config.cognition.train_timeout_s  # the generation that swaps adapters waits for it
        return self._progress.idle_s() > patience_s
