"""One daemon on one state directory: its parts put together, run in one task group and taken down in order.

Order of stopping: stop asking, drop what is being evaluated (finished evaluations are stored already), finish the
transaction under way, close the journal, say goodbye. The journal is the only thing that must be closed well, and even
that is a courtesy: every commit was durable when it happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from riwoa.config.loading import Loaded
from riwoa.config.reload import watch_forever
from riwoa.files.lock import Lock
from riwoa.log import get_logger
from riwoa.paths import StatePaths
from riwoa.patience import is_transient
from riwoa.service.alerts import Alerter
from riwoa.service.control import ControlServer
from riwoa.service.logs import standard_error_file
from riwoa.service.notify import Notifier
from riwoa.service.page import keep_page
from riwoa.service.parts import DaemonParts
from riwoa.service.session import Session
from riwoa.service.supervisor import Supervisor
from riwoa.service.tasks import run_until
from riwoa.service.verbs import HARMLESS, Verbs
from riwoa_storage.errors import StorageError
from riwoa_storage.events import Asked
from riwoa_storage.writer import LOCK_PATIENCE_S, JournalWriter

_log = get_logger("service")
_FOREGROUND_LOCK_PATIENCE_S = 180.0  # where somebody reads why it ended


class Daemon:
    """Serves one state directory from start to exit code.

    Args:
        paths: of the state directory, whose lock is held.
        loaded: the configuration.
        overrides: the command line's ``--set`` values, for reloads.
        lock: told where the control socket is.
        new_run: begin another run even where one is unfinished.
        foreground: somebody looks on at a terminal: fail rather than wait.
        renew_before_unix_s: a finished run whose last commit is older is followed by another; 0 for none.
    """

    def __init__(
        self,
        paths: StatePaths,
        loaded: Loaded,
        overrides: Sequence[str],
        *,
        lock: Lock,
        new_run: bool,
        foreground: bool,
        renew_before_unix_s: float = 0.0,
    ) -> None:
        self._notifier = Notifier()
        self._parts = DaemonParts.assemble(paths, loaded, overrides, self._notifier, foreground=foreground)
        self.board = self._parts.board
        self._lock = lock
        self._new_run = new_run
        self._renew_before_unix_s = renew_before_unix_s
        self._alerter: Alerter | None = None
        self._stopping = asyncio.Event()
        self._hangup = asyncio.Event()

    async def run(self) -> int:
        """Serve until the run is finished, a stop is asked for, or something breaks; returns the exit code.

        Raises:
            RiwoaError, StorageError, OSError: the reason why it cannot go on.
        """
        self._install_signals()
        journal = await self._open_journal()
        if journal is None:
            return 0
        control = self._control_server(journal)
        try:
            await control.start()
            places = {"socket": control.place, "log": standard_error_file()}  # riwoactl finds them in the lock
            self._lock.tell(**{name: place for name, place in places.items() if place is not None})
            self.board.sources.socket = lambda: control.place
            self._notifier.ready()
            await self._work(journal)
            return 0
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self.board.show("unhealthy", str(error))
            raise
        finally:
            self._notifier.stopping()
            self.board.write()
            try:
                if self._alerter is not None:
                    await self._alerter.finish()
                await control.close()
            finally:
                await journal.close()

    async def _open_journal(self) -> JournalWriter | None:
        """The journal, when another process has let go of it and there is room; None when a stop came first."""
        foreground = self._parts.foreground
        while True:
            try:
                patience_s = _FOREGROUND_LOCK_PATIENCE_S if foreground else LOCK_PATIENCE_S
                return await JournalWriter.open(self._parts.paths.journal, lock_patience_s=patience_s)
            except StorageError as error:
                if foreground or not is_transient(error):
                    raise
                self.board.show("unhealthy", str(error))
                self.board.write()
                _log.error("journal_not_opened", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._parts.reloader.newest.governor.retry_s)
                return None
            self.board.show("starting")

    def _control_server(self, journal: JournalWriter) -> ControlServer:
        async def note(asked: Asked) -> None:
            run = self.board.look().get("run")
            where = (run["run_id"], run["generation"]) if run else (None, None)
            await journal.put_event(replace(asked, run_id=where[0], generation=where[1], created_unix_s=time.time()))

        verbs = Verbs(self.board, self._parts.pauses, self._parts.reloader, self._stopping)
        return ControlServer(
            Path(self._parts.paths.socket_to_bind),
            verbs.handlers(),
            harmless=HARMLESS,
            group=self._parts.loaded.config.control.group,
            operators=lambda: self._parts.reloader.config.control.operators,
            state=self._parts.paths.directory,
            note=note,
        )

    async def _work(self, journal: JournalWriter) -> None:
        """Search, with what serves the daemon beside it, until the run is finished or a stop is asked for."""
        parts = self._parts

        def begin(new_run: bool) -> Session:
            return Session(parts, journal, new_run=new_run)

        alerter = self._alerter = Alerter(
            journal, parts.paths.journal, self.board, lambda: parts.reloader.newest.alerts, parts.paths.directory
        )
        supervisor = Supervisor(
            parts, journal, begin, new_run=self._new_run, renew_before_unix_s=self._renew_before_unix_s
        )

        async def work(group: asyncio.TaskGroup) -> None:
            attendants = {
                "status": parts.heartbeat.beat(),
                "reload": watch_forever(self._parts.reloader),
                "hangup": self._reload_on_hangup(),
                "governor": parts.pauses.governor.watch(),
                "alerts": alerter.watch(),
                "page": keep_page(lambda: parts.reloader.newest.web, parts.paths.directory),
            }
            for name, attendant in attendants.items():
                group.create_task(attendant, name=name)
            await supervisor.run()

        if not await run_until(work, self._stopping.wait()):
            self.board.show("stopped", "stopped on request; start again to continue")

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)

    async def _reload_on_hangup(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            self._notifier.reloading()
            await self._parts.reloader.try_reload()
            self._notifier.ready()
