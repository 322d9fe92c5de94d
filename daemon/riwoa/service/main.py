"""The composition root: builds the rooms, runs them in one task group, and takes them down in order.

Order of stopping: stop asking, drop what is being evaluated (finished evaluations are stored already), finish the
transaction under way, close the journal, say goodbye. The journal is the only thing that must be closed well, and even
that is a courtesy: every commit was durable when it happened.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from riwoa import __version__
from riwoa.cognition.adapters import AdapterFiles, journaled
from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.config.hours import checked_hours, window
from riwoa.config.loading import Loaded, difference, from_journal, keys_in_journal, load
from riwoa.config.reload import Reloader, watch_forever, with_keys
from riwoa.config.schema import Config, as_json, may_restart, value_of
from riwoa.console.streams import Guarded
from riwoa.errors import (
    ConfigError,
    DaemonUnavailableError,
    FullDiskError,
    OracleError,
    RiwoaError,
    StateLockedError,
    TableError,
    UsageError,
)
from riwoa.files.lock import Lock, locked
from riwoa.files.ownership import keep_writing_to_ourselves
from riwoa.hardware.drift import Drift, check_drift_in_child
from riwoa.hardware.interval import interval_of
from riwoa.hardware.obtain import BuildProgress
from riwoa.hardware.probe import library_versions
from riwoa.ipc.child import child_command, child_environment, die_with_parent
from riwoa.log import configure, get_logger
from riwoa.oracle.kind import Problem
from riwoa.oracle.pool import WorkerPool
from riwoa.oracle.workers import pool_settings
from riwoa.paths import ORDER, StatePaths, daemon_state
from riwoa.patience import Convenience, passes, patiently
from riwoa.run.conductor import Conductor
from riwoa.run.credit import OperatorSeconds
from riwoa.run.deadline import Overdue, overdue
from riwoa.run.evaluations import EvaluationRequest, Evaluations, version_at
from riwoa.run.problem import load_problem
from riwoa.run.provision import Provision, provide
from riwoa.service.control import ControlServer
from riwoa.service.foreground import attach, exported_digest, show_end, show_progress
from riwoa.service.governor import Governor
from riwoa.service.notify import Notifier
from riwoa.service.status import Rate, StatusBoard, one_line
from riwoa.service.views import (
    config_view,
    current_leader,
    evaluations_view,
    finished_view,
    governor_view,
    operators_view,
    proposals_view,
    run_view,
    screening_view,
    workers_view,
)
from riwoa.surrogate.gaussian_process import Examples
from riwoa.surrogate.screening import prior_examples
from riwoa.text import duration, printable
from riwoa_storage.errors import JournalMissingError, StorageError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import EventRecord, RunRecord
from riwoa_storage.replay import verify
from riwoa_storage.writer import LOCK_PATIENCE_S, JournalWriter

_log = get_logger("service")
_STATUS_EVERY_S = 1.0
_WRITE_EVERY_S = 15.0
_DOUBLINGS = 5  # of governor.retry_s
_PROVE_EVERY_S = 120.0
_MOST_CHARACTERS = 4000  # of a last line
_PART = 500  # generations proved before that is remembered
_PROVING = "verifying the journal"
_LOCK_PATIENCE_S = 180.0  # in the foreground, where somebody reads why it ended
_SLICE_S = 5.0  # of a wait that a deadline may end
_LEAST_NIGHT_S = 1800.0  # what a new run needs to be worth more than the last one's answer


class Over(Exception):
    """Unwinds a task group."""


class Service:
    """One daemon on one state directory, from start to exit code."""

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
        """``renew_before_unix_s``: a finished run that began earlier is followed by another."""
        self.paths = paths
        self.board = StatusBoard(paths.status, paths.state)
        self.stopping = asyncio.Event()
        self._hangup = asyncio.Event()
        self._lock = lock
        self._loaded = loaded
        self._new_run = new_run
        self._renew_before_unix_s = renew_before_unix_s
        self._foreground = foreground
        self._notifier = Notifier()
        self._reloader = Reloader(loaded, overrides)
        self._conductor: Conductor | None = None
        self._proposal_queue: ProposalQueue | None = None
        self._evaluations: Evaluations | None = None
        self._pool: WorkerPool | None = None
        self._governor = Governor(lambda: self._reloader.newest.governor, paths.state, on_change=self._on_holds)
        self._own_holds: dict[str, str] = {}  # why it pauses besides the governor: a person, a measurement
        self._recovering = False  # waiting for an oracle, or a disk, that failed altogether
        self._rate = Rate()
        self._restarted: dict[str, Any] = {}  # keys that this start changed in the run that it continues
        self._progress_s = time.monotonic()
        self.board.sources["governor"] = lambda: governor_view(self._governor)

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until the run is finished, a stop is asked for, or something breaks; returns the exit code.

        Raises:
            RiwoaError, StorageError: the reason why it cannot go on.
        """
        self._install_signals()
        journal = await self._open_journal()
        if journal is None:
            return 0
        control = ControlServer(
            Path(self.paths.socket_to_bind),
            self._verbs(),
            harmless={"status"},
            group=self._loaded.config.control.group,
            operators=lambda: self._config.control.operators,
            state=self.paths.directory,
        )
        try:
            await control.start()
            if control.place is not None:
                self._lock.tell(socket=control.place)  # riwoactl finds it there
            self.board.sources["socket"] = lambda: control.place
            self._notifier.ready()
            await self._work(journal)
            return 0
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self.board.state = "unhealthy"
                self.board.message = str(error)
            raise
        finally:
            self._notifier.stopping()
            self.board.write()
            try:
                await control.close()
            finally:
                await journal.close()

    async def _open_journal(self) -> JournalWriter | None:
        """The journal, when another process has let go of it and there is room; None when a stop came first."""
        while True:
            try:
                patience_s = _LOCK_PATIENCE_S if self._foreground else LOCK_PATIENCE_S
                return await JournalWriter.open(self.paths.journal, lock_patience_s=patience_s)
            except StorageError as error:
                if self._foreground or not passes(error):
                    raise
                self.board.state, self.board.message = "unhealthy", str(error)
                self.board.write()
                _log.error("journal_not_opened", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), self._reloader.newest.governor.retry_s)
                return None
            self.board.state, self.board.message = "starting", ""

    async def _work(self, journal: JournalWriter) -> None:
        """Run the search beside its attendants until one side ends."""

        async def work(group: asyncio.TaskGroup) -> None:
            attendants = {
                "status": self._attend(),
                "reload": watch_forever(self._reloader),
                "hangup": self._reload_on_hangup(),
                "governor": self._governor.watch(),
            }
            for name, attendant in attendants.items():
                group.create_task(attendant, name=name)
            await self._searches(journal)

        if not await _run_until(work, self.stopping.wait()):
            self.board.state = "stopped"
            self.board.message = "stopped on request; start again to continue"

    async def _searches(self, journal: JournalWriter) -> None:
        """Search to the end of the run, again and again from where the journal stands, while what ended it may mend."""
        failures = 0
        self._governor.look()
        while True:
            started_s = time.monotonic()
            try:
                if await self._ended_by_deadline(journal) or await self._report_finished(journal):
                    return
                if not await self._until_free():
                    continue  # the deadline came first
                started_s = time.monotonic()
                if await _run_until(partial(self._search, journal=journal), self._unloading()):
                    return
                failures = 0
            except (RiwoaError, StorageError, OSError) as error:
                if self._foreground or not (isinstance(error, OracleError) or passes(error)):
                    raise  # somebody is looking on, or waiting would not mend it
                first_s = self._reloader.newest.governor.retry_s
                lasted = time.monotonic() - started_s > first_s * 2**_DOUBLINGS
                failures = 0 if lasted else failures + 1
                await self._recover(error, first_s * 2 ** min(max(0, failures - 1), _DOUBLINGS))

    async def _until_free(self) -> bool:
        """Wait while the governor holds; False when the run's deadline came first."""
        waited = bool(self._governor.holds)
        while self._governor.holds:
            self.board.state, self.board.message = "paused", "; ".join(self._governor.holds.values())
            await self._governor.until(lambda: not self._governor.holds, _SLICE_S)
            if self._overdue() is not None:
                return False
        if waited:
            self.board.state, self.board.message = "starting", ""
            self._progress()
        return True

    async def _unloading(self) -> None:
        """Until the governor wants the workers' memory back."""
        await self._governor.until(lambda: self._governor.unloads)

    async def _recover(self, error: Exception, wait_s: float) -> None:
        """Stay up, and say what is wrong: the next try is from where the journal stands."""
        self._recovering = True
        self.board.state = "unhealthy"
        self.board.message = f"{error} (tried again every {duration(wait_s)})"
        _log.error("search_failed", reason=str(error), again_in_s=wait_s)
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0 and self._overdue() is None:  # noqa: ASYNC110 - a clock wakes nobody
            await asyncio.sleep(min(left_s, _SLICE_S))
        self._recovering = False
        self.board.state, self.board.message = "starting", ""
        self._progress()

    def _overdue(self) -> Overdue | None:
        """The run under way, if its deadline has passed and it has an answer."""
        try:
            return None if self._new_run else overdue(self.paths.journal, time.time(), self._reloader.newest.run)
        except StorageError as error:
            if not passes(error):
                raise
            return None  # asked again in a moment

    async def _ended_by_deadline(self, journal: JournalWriter) -> bool:
        """End a run whose deadline has passed, from the journal alone: what it found needs no oracle to be exported."""
        late = self._overdue()
        if late is None:
            return False
        payload = {"deadline": late.deadline, "phase": "not searching"}
        event = EventRecord(kind="deadline", run_id=late.run.run_id, payload=payload, created_unix_s=time.time())
        await journal.put_event(event)
        await journal.finish_run(late.run.run_id)
        self._renew_before_unix_s = 0.0
        return await self._report_finished(journal)

    async def _search(self, group: asyncio.TaskGroup, *, journal: JournalWriter) -> None:
        # Beside the slow starts, but before anything is written: never build on a broken chain. A damaged adapter is no
        # reason to stop: learning falls back to the last good one, and says so.
        checking = group.create_task(self._prove(journal, starting=True), name="verify")
        run_before = self._unfinished()
        problem = await self._load_problem()
        provision = await self._provide(run_before)
        async with contextlib.AsyncExitStack() as stack:
            pool, version = await self._start_pool(stack, problem, provision)
            await checking
            prior = prior_examples(self._config.search.predictor, problem.space)
            run = await self._run_record(journal, run_before, problem, version, provision, prior)
            self._proposal_queue = self._make_proposal_queue(group, stack, journal, provision)
            told = {"on_result": self._progress, "on_full": self._rate.tick}
            self._evaluations = Evaluations(pool, journal, self.paths.journal, version, **told, run_id=run)
            conductor = Conductor(
                journal=journal,
                journal_path=self.paths.journal,
                run_id=run,
                space=problem.space,
                latency_of=problem.latency_of,
                layer_ms=problem.layer_ms,
                prior=prior,
                catalogue=problem.catalogue,
                target_ms=problem.auto_target_ms,
                evaluations=self._evaluations,
                proposal_queue=self._proposal_queue,
                style=provision.style,
                reloader=self._reloader,
                on_commit=self._on_commit,
                on_config=lambda c: self._on_config(pool, c),
            )
            await conductor.restore(self._on_restore)
            self._conductor, self._pool, self._new_run = conductor, pool, False
            stack.callback(self._without_pool)
            seconds = self._show_run(interval_of(self.paths.latency_table, problem.latency_sha256))
            self._on_holds()
            counting = group.create_task(self._count_seconds(seconds, conductor), name="seconds")
            stack.push_async_callback(_stop, counting)
            proving = group.create_task(self._prove_on(journal), name="verify")
            stack.push_async_callback(_stop, proving)
            if problem.measured is not None:
                watch = group.create_task(self._watch_drift(problem.measured, pool, journal, run), name="drift")
                stack.push_async_callback(_stop, watch)
            await conductor.run()
            self.board.sources.pop("time_left_s", None)  # nobody knows how long the rest takes
        await self._confirm(journal, problem, conductor)
        await journal.finish_run(run)
        await self._export()
        self.board.state = "finished"
        if not self.board.message.startswith("not exported"):
            why = "all that exists within the target is evaluated: " if conductor.exhausted else ""
            more = "`riwoactl pareto` shows what it found, --new-run starts another"
            self.board.message = f"{why}the run is finished; {more}"

    # -- the rooms -----------------------------------------------------------------------------------------------------

    @property
    def _config(self) -> Config:
        return self._reloader.config

    async def _report_finished(self, journal: JournalWriter) -> bool:
        """Whether the latest run is finished and no other is to follow; then at most its export is missing."""
        with JournalReader(self.paths.journal) as reader:
            run = reader.latest_run()
            if run is None or run.status != "finished" or self._new_run:
                return False
            last = reader.last_generation(run.run_id)
        if last is not None and self._of_another_night(last.committed_unix_s):
            return False
        await self._prove(journal, starting=False)
        if last is not None:
            interval = interval_of(self.paths.latency_table, run.provenance.get("latency_table_sha256"))
            for name, part in finished_view(run, last, interval).items():
                self.board.sources[name] = partial(_same, part)
            if exported_digest(self.paths) != last.digest:
                await self._export()
        self.board.state = "finished"
        if not self.board.message.startswith("not exported"):
            self.board.message = f"run {run.run_id} is finished; --new-run starts another"
        return True

    def _of_another_night(self, unix_s: float) -> bool:
        """Before this night began; or after now, by a clock that was ahead."""
        return unix_s < self._renew_before_unix_s or 0.0 < self._renew_before_unix_s < time.time() < unix_s

    def _unfinished(self) -> RunRecord | None:
        """The run to continue, if its configuration allows it; the configuration it used last is then in force."""
        with JournalReader(self.paths.journal) as reader:
            run = reader.latest_run()
            if run is None or run.status != "running" or self._new_run:
                return None
            journaled = reader.config_revisions(run.run_id)[-1].config
        in_force = from_journal(journaled)
        refused = difference(in_force, self._loaded.config).refused
        # Where nobody asked for it, a run begun before there was such a key goes on as it was.
        begun_with = keys_in_journal(journaled)
        refused = {
            key: pair
            for key, pair in refused.items()
            if key in begun_with or self._loaded.origin.get(key, "default") != "default"
        }
        restarted = [key for key in refused if may_restart(key, type(in_force))]
        names = [f"{key} ({old!r} -> {new!r})" for key, (old, new) in refused.items() if key not in restarted]
        if names:
            raise ConfigError(
                f"run {run.run_id} cannot continue with another {', '.join(names)}; change it back or use --new-run"
            )
        self._restarted = {key: value_of(self._loaded.config, key) for key in restarted}
        self._reloader.continue_from(with_keys(in_force, self._loaded.config, restarted))
        return run

    async def _load_problem(self) -> Problem:
        """What is searched; a target that nothing can meet is refused here, before anything is."""
        self.board.state = "measuring"
        self.board.message = "measuring the operators of this device"

        def progress(p: BuildProgress) -> None:
            self._progress()
            self.board.sources["time_left_s"] = lambda: p.left_s
            self.board.message = f"measuring the operators of this device: round {p.done} of {p.total}"

        problem = await load_problem(self._config, self.paths.latency_table, progress)
        self.board.sources.pop("time_left_s", None)
        problem.check_target(self._loaded.config)
        self._reloader.check = problem.check_target
        return problem

    async def _provide(self, run: RunRecord | None) -> Provision:
        """Who writes proposals in this run; shown from now on."""
        provision = await provide(lambda: self._config.cognition, run, _log_model, self._model_directory(run))
        self.board.sources["cognition"] = provision.view
        if provision.missed:
            _log.warning("no_language_model", state=provision.state, reason=provision.reason)
        return provision

    def _model_directory(self, run: RunRecord | None) -> str | None:
        """Where the model of a run that is continued lay last."""
        if run is None:
            return None
        with JournalReader(self.paths.journal) as reader:
            told = [e.payload["directory"] for e in reader.events(run.run_id, limit=10_000) if e.kind == "cognition"]
        return next((directory for directory in reversed(told) if directory), None)

    async def _start_pool(
        self, stack: contextlib.AsyncExitStack, problem: Problem, provision: Provision
    ) -> tuple[WorkerPool, str]:
        self.board.state = "starting"
        self.board.message = "starting the workers"
        # Limits decide no result: an edit that mends them must not wait for a boundary that they keep from coming.
        newest = self._reloader.newest.oracle
        limits = {"timeout_s": newest.timeout_s, "memory_bytes": newest.memory_bytes}
        oracle = self._config.oracle.model_copy(update=limits)
        settings = pool_settings(oracle, kept_cores=provision.busy_cores)
        pool = WorkerPool(problem.spec, settings, on_log=_log_worker)
        stack.push_async_callback(pool.close)
        info = await pool.start()
        self.board.sources["workers"] = lambda: workers_view(pool.stats())
        return pool, info.version

    def _make_proposal_queue(
        self, group: asyncio.TaskGroup, stack: contextlib.AsyncExitStack, journal: JournalWriter, provision: Provision
    ) -> ProposalQueue | None:
        if provision.provider is None:
            return None
        proposal_queue = ProposalQueue(
            provision.provider,
            journal,
            lag=self._config.cognition.lag,
            timeout_s=lambda: self._config.cognition.timeout_s,
            train_timeout_s=lambda: self._config.cognition.train_timeout_s,
            adapters=AdapterFiles(Path(self.paths.name("cache")) / "adapters", journaled(self.paths.journal)),
            progress=self._progress,
        )
        stack.push_async_callback(provision.provider.close)
        work = group.create_task(proposal_queue.run(), name="proposals")

        # Before the provider closes (callbacks run backwards): work cut short by a stop is no failure to be journaled.
        stack.push_async_callback(_stop, work)
        return proposal_queue

    async def _run_record(
        self,
        journal: JournalWriter,
        run: RunRecord | None,
        problem: Problem,
        version: str,
        provision: Provision,
        prior: Examples | None,
    ) -> int:
        """Begin a run, or continue the unfinished one, if it is still the same search."""
        if run is None:
            provenance = {**self._provenance(problem, version, prior), **provision.provenance()}
            run_id = await journal.begin_run(provenance, as_json(self._config))
        else:
            _require_same(run, problem, version, prior)
            run_id = run.run_id
            changed = {key: list(v) if isinstance(v, tuple) else v for key, v in self._restarted.items()}
            event = EventRecord(
                kind="resumed", run_id=run_id, payload={"restarted": changed}, created_unix_s=time.time()
            )
            await journal.put_event(event)
        event = EventRecord(kind="cognition", run_id=run_id, payload=provision.event(), created_unix_s=time.time())
        await journal.put_event(event)
        return run_id

    def _provenance(self, problem: Problem, oracle_version: str, prior: Examples | None) -> dict[str, Any]:
        config = self._config
        wanted = config.objective.latency_ms
        return {
            "riwoa": __version__,
            "seed": config.run.seed,
            "strategy": config.search.strategy,
            "space": problem.space.to_json(),
            "objective": config.objective.model_dump(mode="json"),
            "target_ms": problem.auto_target_ms if wanted == "auto" or problem.auto_target_ms is None else wanted,
            "oracle": problem.spec.to_json(),
            "oracle_version": oracle_version,
            "latency_table_sha256": problem.latency_sha256,
            "versions": library_versions(),
            **self._shortcuts(prior),
        }

    def _shortcuts(self, prior: Examples | None) -> dict[str, Any]:
        """What evaluates fewer in full, where there is something."""
        oracle = self._config.oracle
        raced = {"race": {"rungs": list(oracle.rungs), "confidence": oracle.rung_confidence}} if oracle.rungs else {}
        return raced | ({"prior_sha256": prior.sha256} if prior is not None else {})

    async def _confirm(self, journal: JournalWriter, problem: Problem, conductor: Conductor) -> None:
        """Evaluate the winner once more in float32, which is what gets exported, and journal that too.

        A search in bfloat16 ranks the same but may read an image or two differently than the exported model does.
        """
        winner = conductor.leader
        if problem.exact_spec is None or winner is None:
            return
        self.board.message = "confirming the winner in float32"
        async with WorkerPool(problem.exact_spec, replace(pool_settings(self._config.oracle), workers=1)) as pool:
            info = await pool.start()
            evaluations = Evaluations(pool, journal, self.paths.journal, info.version, on_result=self._progress)
            individual = winner.individual
            wanted = EvaluationRequest(individual.architecture_key, individual.architecture)
            (confirmed,) = await evaluations.evaluate([wanted])
        payload = {
            "architecture_key": individual.architecture_key,
            "oracle_version": info.version,
            "metrics": dict(confirmed.metrics),
            "error": confirmed.error,
        }
        event = EventRecord(
            kind="winner_confirmed",
            payload=payload,
            run_id=conductor.run_id,
            generation=winner.generation,
            created_unix_s=time.time(),
        )
        await journal.put_event(event)

    async def _export(self) -> None:
        if not self._config.run.export:
            return
        self.board.state = "exporting"
        self.board.message = ""
        try:
            reason = await self._export_in_child()
        except OSError as error:
            reason = str(error)
        if reason is not None:
            # The search is safe in the journal; the files can be written at any time.
            _log.error("export_failed", reason=reason)
            self.board.message = f"not exported: {reason}; `riwoactl export` tries again"

    async def _export_in_child(self) -> str | None:
        """Why the files could not be written; None where they are."""
        process = await asyncio.create_subprocess_exec(
            *child_command("riwoa.export", str(self.paths.journal), str(self.paths.export)),
            env=child_environment(1),
            stdin=asyncio.subprocess.PIPE,  # held open: its end is how the child learns that we are gone
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None
        try:
            stderr = await process.stderr.read()
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        lines = stderr.decode(errors="replace").strip().splitlines()
        if process.returncode != 0:
            return lines[-1][-500:] if lines else f"its process ended with {process.returncode}"
        for line in lines:
            _voice.say(_log.warning, "export_said", line=printable(line))
        return None

    async def _prove(self, journal: JournalWriter, *, starting: bool) -> None:
        """Recompute the digest chain of what was committed since the last time, and remember how far it holds.

        In parts, each remembered: a journal that was just migrated is proved from its beginning, and a kill on the way
        costs one part.

        Raises:
            JournalCorruptError: it does not hold.
        """
        given_up, complete = False, False

        def told(done: int, total: int) -> None:
            if given_up:
                raise asyncio.CancelledError  # ends the thread, for whom a daemon that stops would have to wait
            if starting:
                self._on_proof(done, total)

        prove = partial(verify, self.paths.journal, adapters=False, since_last=True, most=_PART, progress=told)
        structure = starting
        try:
            while not complete:
                found = await patiently(partial(prove, structure=structure))
                await journal.mark_verified(found.runs)
                complete, structure = found.complete, False
        except asyncio.CancelledError:
            given_up = True
            raise
        if self.board.message.startswith(_PROVING):
            self.board.message = ""

    # -- attendants ----------------------------------------------------------------------------------------------------

    async def _attend(self) -> None:
        """Once a second: status.json, systemd's status line, and the watchdog while there is progress."""
        interval_s = self._notifier.watchdog_interval_s
        telling = Convenience("systemd's status")
        written, written_s = "", 0.0
        while True:
            # Commits write it too; between them a flash card is spared.
            if self.board.state != written or time.monotonic() - written_s >= _WRITE_EVERY_S:
                written, written_s = self.board.state, time.monotonic()
                self.board.write()
            telling.attempt(lambda: self._notifier.status(one_line(self.board.look())))
            if interval_s is not None and not self._stalled():
                self._notifier.watchdog()
            await asyncio.sleep(min(_STATUS_EVERY_S, interval_s / 3 if interval_s else _STATUS_EVERY_S))

    def _stalled(self) -> bool:
        """Nothing was evaluated, answered or measured for longer than any single piece of work may take."""
        if self._recovering or self._holds:
            return False
        patience_s = 2 * self._config.oracle.timeout_s + self._config.cognition.timeout_s + 60
        if self.board.state == "starting":  # a folder of pictures is decoded once
            patience_s += pool_settings(self._config.oracle).start_timeout_s
        if self._proposal_queue is not None and self._proposal_queue.stats().provider.state == "training":
            patience_s += self._config.cognition.train_timeout_s  # the generation that swaps adapters waits for it
        return time.monotonic() - self._progress_s > patience_s

    def _progress(self) -> None:
        self._progress_s = time.monotonic()

    def _on_commit(self) -> None:
        self._progress()
        self._show_state()
        self.board.write()

    @property
    def _holds(self) -> dict[str, str]:
        """Why the search pauses; empty while it may go on."""
        return {**self._own_holds, **self._governor.holds}

    def _hold(self, by: str, reason: str | None) -> None:
        """Pause for a reason of our own, or with None no longer for it."""
        if reason is None:
            self._own_holds.pop(by, None)
        else:
            self._own_holds[by] = reason
        self._on_holds()

    def _without_pool(self) -> None:
        self._pool = None

    def _on_holds(self) -> None:
        """Pause or go on: evaluations under way end, no other begins."""
        held = bool(self._holds)
        if self._conductor is not None and self._pool is not None:
            self._pool.hold(held)
            self._conductor.running.clear() if held else self._conductor.running.set()
        if not held:
            self._progress()
        self._show_state()

    def _show_state(self) -> None:
        """What a search under way, or one that waits to begin, is called."""
        holds = self._holds
        if self.board.state not in ("starting", "running", "polishing", "paused"):
            return
        if holds:
            self.board.state = "paused"
            self.board.message = "; ".join(holds.values())
        elif self.board.state == "starting":
            return
        elif self._pool is None:  # a pause is over, the workers are still to come
            self.board.state = "starting"
            self.board.message = ""
        elif self._conductor is not None:
            self.board.state = "polishing" if self._conductor.phase == "polish" else "running"
            self.board.message = ""

    def _on_config(self, pool: WorkerPool, config: Config) -> None:
        pool.set_limits(config.oracle.timeout_s, config.oracle.memory_bytes)
        configure_log(config, foreground=self._foreground)

    def _on_proof(self, done: int, total: int) -> None:
        """Called from a thread, beside the other slow starts."""
        self._progress()
        if self.board.state == "starting":
            self.board.message = f"{_PROVING}: generation {done} of {total}"

    def _on_restore(self, done: int, total: int) -> None:
        """Called from a thread."""
        self._progress()
        self.board.message = f"reading the journal: generation {done} of {total}"

    def _show_run(self, latency_interval: float | None) -> OperatorSeconds:
        conductor, evaluations = self._conductor, self._evaluations
        assert conductor is not None
        assert evaluations is not None
        self.board.state = "running"
        self.board.message = ""
        versions = [version_at(evaluations.oracle_version, rung) for rung in (None, *conductor.racing.rungs)]
        seconds = OperatorSeconds(self.paths.journal, conductor.run_id, versions)
        self.board.sources |= {
            "run": lambda: run_view(conductor),
            "evaluations": lambda: evaluations_view(conductor, evaluations, self._rate),
            "time_left_s": conductor.time_left_s,
            "leader": lambda: current_leader(conductor, latency_interval),
            "pareto": lambda: len(conductor.history.archive),
            "proposals": lambda: proposals_view(conductor, self._proposal_queue),
            "operators": lambda: operators_view(conductor, seconds),
            "screening": lambda: screening_view(conductor),
            "config": lambda: config_view(conductor, self._reloader),
        }
        return seconds

    async def _count_seconds(self, seconds: OperatorSeconds, conductor: Conductor) -> None:
        """Beside the search, slice by slice: nobody waits for what only the status shows."""
        counting = Convenience("operator seconds")
        more = True
        while True:
            if not more:
                await asyncio.sleep(_STATUS_EVERY_S)
            more = False

            def count() -> None:
                nonlocal more
                more = seconds.count(conductor.history.generations)

            await asyncio.to_thread(counting.attempt, count)

    async def _prove_on(self, journal: JournalWriter) -> None:
        """Now and then, so that no start finds a long history unproved."""
        while True:
            await asyncio.sleep(_PROVE_EVERY_S)
            await self._prove(journal, starting=False)

    async def _watch_drift(self, table: Path, pool: WorkerPool, journal: JournalWriter, run_id: int) -> None:
        """Now and then: does the device still run as its table says? It only tells: a run has one table."""
        since_s = time.monotonic()
        while True:
            await asyncio.sleep(_STATUS_EVERY_S)
            every_s = self._reloader.newest.latency.drift_every_s
            if every_s is None or time.monotonic() - since_s < every_s or self._holds:
                continue
            self._hold("drift", "measuring whether the latency table still holds")
            try:
                while any(w.state == "busy" for w in pool.stats().workers):  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(0.2)
                await self._tell_drift(await check_drift_in_child(table), journal, run_id)
            except (RiwoaError, StorageError, OSError) as error:
                _log.warning("drift_not_checked", reason=str(error))
            finally:
                since_s = time.monotonic()
                self._hold("drift", None)

    async def _tell_drift(self, drift: Drift, journal: JournalWriter, run_id: int) -> None:
        now = time.time()
        self.board.sources["latency"] = partial(_same, {**drift.to_json(), "checked_unix_s": now})
        write = _log.warning if drift.affects else _log.info
        write("latency_drift", verdict=drift.verdict, networks=round(drift.networks, 3), affects=list(drift.affects))
        event = EventRecord(kind="latency_drift", payload=drift.to_json(), run_id=run_id, created_unix_s=now)
        await journal.put_event(event)

    # -- verbs and signals ---------------------------------------------------------------------------------------------

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)

    async def _reload_on_hangup(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            self._notifier.reloading()
            await self._reloader.try_reload()
            self._notifier.ready()

    def _verbs(self) -> dict[str, Any]:
        async def status() -> Mapping[str, Any]:
            return {"status": self.board.look()}

        async def pause() -> Mapping[str, Any]:
            self._require_search()
            self._hold("person", "by riwoactl pause")
            return {"message": "pausing; evaluations under way end first"}

        async def resume() -> Mapping[str, Any]:
            self._require_search()
            self._hold("person", None)
            held = "; ".join(self._holds.values())
            return {"message": f"still paused: {held}" if held else "searching on"}

        async def stop() -> Mapping[str, Any]:
            self.stopping.set()
            return {"message": "stopping; everything committed stays"}

        async def reload() -> Mapping[str, Any]:
            found = await self._reloader.reload_aside()
            return {"applied_next_generation": sorted(found.live), "needs_restart": []}  # such a file is refused

        return {"status": status, "pause": pause, "resume": resume, "stop": stop, "reload": reload}

    def _require_search(self) -> None:
        if self._conductor is None:
            raise DaemonUnavailableError("the search has not begun yet; try again in a moment")


async def _stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def _run_until(work: Callable[[asyncio.TaskGroup], Awaitable[None]], until: Coroutine[Any, Any, Any]) -> bool:
    """Run ``work`` in a task group of its own; False when ``until`` ended first and the work was cancelled.

    Raises:
        RiwoaError, StorageError, OSError: what the work, or a task that it started, failed for.
    """

    async def main(group: asyncio.TaskGroup) -> None:
        await work(group)

    finished, failure = False, None
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(main(group), name="work")
            other = group.create_task(until, name="until")
            await asyncio.wait((task, other), return_when=asyncio.FIRST_COMPLETED)
            finished = task.done()
            if finished:
                task.result()
            else:
                task.cancel()
                await asyncio.wait((task,))
            raise Over
    except* Over:
        pass
    except* (RiwoaError, StorageError, OSError) as errors:
        failure = _first(errors)
    if failure is not None:  # raised in there, Python before 3.11.4 wraps it in a group of its own
        raise failure
    return finished


def _require_same(run: RunRecord, problem: Problem, oracle_version: str, prior: Examples | None) -> None:
    """Refuse to continue a run on other latencies, another oracle or predictor: it would be another search.

    Raises:
        TableError, ConfigError: say what differs and the way out.
    """
    if run.provenance["latency_table_sha256"] != problem.latency_sha256:
        raise TableError(
            f"run {run.run_id} was begun with another latency table than the one there is now; put it back or use "
            "--new-run"
        )
    if run.provenance["oracle_version"] != oracle_version:
        raise ConfigError(
            f"run {run.run_id} was begun with another oracle (checkpoint, data, table, dtype or library versions "
            "changed); undo the change or use --new-run"
        )
    if run.provenance.get("prior_sha256") != (prior.sha256 if prior is not None else None):
        raise ConfigError(
            f"run {run.run_id} was begun with another file in search.predictor; put it back or use --new-run"
        )


def configure_log(config: Config, *, foreground: bool) -> None:
    """Logs as configured; in the foreground the progress view owns the terminal and only trouble gets a line."""
    quiet = foreground and config.log.level == "info"
    configure("warning" if quiet else config.log.level, config.log.format)


def _same(part: Any) -> Any:
    return part


class _Voice:
    """Lines of child processes in the log, at most so many a minute: one that floods must not fill the disk."""

    def __init__(self, most_a_minute: int = 60) -> None:
        self._most = most_a_minute
        self._minute = 0
        self._said = self._dropped = 0

    def say(self, write: Callable[..., Any], event: str, **facts: Any) -> None:
        """Write the line, unless too many were written this minute; how many were left out is said later."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            if self._dropped:
                _log.warning("lines_dropped", count=self._dropped)
            self._minute, self._said, self._dropped = minute, 0, 0
        self._said += 1
        if self._said <= self._most:
            write(event, **facts)
        else:
            self._dropped += 1


_voice = _Voice()


def _log_worker(slot: int, line: str) -> None:
    _voice.say(_log.warning, "worker_said", worker=slot, line=line)


def _log_model(line: str) -> None:
    _voice.say(_log.info, "model_said", line=line)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first error of a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


# -- the command ----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """``riwoad``: search until finished or told to stop."""
    with Guarded():
        keep_writing_to_ourselves()
        configure("info", "auto")  # until the configuration is read
        try:
            return _main(_parser().parse_args(argv))
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            return _report(_first(error) if isinstance(error, BaseExceptionGroup) else error)


def _report(error: BaseException) -> int:
    """One line on standard error, and the exit code; a bug has its traceback in the log too."""
    if isinstance(error, (RiwoaError, StorageError)):
        print(f"riwoad: {printable(error, _MOST_CHARACTERS)}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError):  # a disk, a permission, a limit of this machine: no bug
        _log.debug("failed", exc_info=error)
        print(f"riwoad: {error}; mend that and start again, it continues", file=sys.stderr)
        return FullDiskError.exit_code
    _log.error("bug", exc_info=error)
    print(f"riwoad: a bug: {type(error).__name__}: {error}; please report it with the log above", file=sys.stderr)
    return RiwoaError.exit_code


def _main(options: argparse.Namespace) -> int:
    loaded = load(options.config, options.set)
    if options.state == "":
        raise UsageError("--state needs a directory, for example --state .riwoa")
    paths = daemon_state(options.state)
    renew_before_unix_s = 0.0
    if options.nightly:
        night, late = _night(options.nightly), overdue(paths.journal, time.time())
        if night is None and late is None:
            return _nothing_to_do(f"it is not {options.nightly} now; nothing to do")
        if night is None and late is not None:  # cut short before its deadline: what it found is still to be exported
            options.set += [f"run.deadline={late.deadline}", f"run.seed={late.run.provenance['seed']}"]
            loaded = load(loaded.source, options.set)
        if night is not None:
            began, ends = night
            options.set.append(f"run.deadline={ends:%Y-%m-%dT%H:%M}")
            options.set += _nightly_seed(paths, loaded)
            loaded = load(loaded.source, options.set)
            long_enough = ends.timestamp() - time.time() > _LEAST_NIGHT_S
            renew_before_unix_s = began.timestamp() if long_enough else 0.0
    configure_log(loaded.config, foreground=options.foreground)
    if loaded.warning is not None:
        _log.warning("config_keys_renamed", reason=loaded.warning)
    try:
        with locked(paths) as lock:
            _log.info("state_directory", path=paths.directory)
            if lock.warning is not None:
                _log.warning("no_flock", reason=lock.warning)
            return asyncio.run(_serve(paths, loaded, options, lock, renew_before_unix_s))
    except StateLockedError as error:
        if options.nightly:
            return _nothing_to_do(str(error))
        if not options.foreground:
            raise
        return asyncio.run(attach(paths))


def _night(hours: str) -> tuple[datetime, datetime] | None:
    """Beginning and end of the night under way; None by day."""
    try:
        return window(checked_hours(hours), datetime.now())
    except ValueError as error:
        raise UsageError(f"--nightly {hours}: should be {error}") from None


def _nightly_seed(paths: StatePaths, loaded: Loaded) -> list[str]:
    """Another seed for each new run, or every night would find what the first one found."""
    try:
        with JournalReader(paths.journal) as reader:
            runs = reader.runs()
    except JournalMissingError:
        runs = []
    if not runs:
        return []
    seed = runs[-1].provenance["seed"] if runs[-1].status == "running" else loaded.config.run.seed + len(runs)
    return [f"run.seed={seed}"]


def _nothing_to_do(why: str) -> int:
    print(f"riwoad: {why}")
    Notifier().ready()  # systemd takes an end before it for a failure
    return 0


async def _serve(
    paths: StatePaths, loaded: Loaded, options: argparse.Namespace, lock: Lock, renew_before_unix_s: float
) -> int:
    service = Service(
        paths,
        loaded,
        options.set,
        lock=lock,
        new_run=options.new_run,
        foreground=options.foreground,
        renew_before_unix_s=renew_before_unix_s,
    )
    if not options.foreground:
        return await service.run()
    # A foreground run ends with the shell or `make` that started it, in good order: the next one continues. A terminal
    # that merely goes away ends nothing: SIGHUP reloads, and what cannot be shown is not.
    die_with_parent(signal.SIGTERM)
    view = asyncio.create_task(show_progress(service.board.look), name="progress")
    try:
        code = await service.run()
    finally:
        view.cancel()
        await asyncio.wait((view,))
    show_end(service.board.look(), paths)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see riwoad --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="riwoad",
        description="Search, unattended and resumable, for the best neural network for this device.",
        epilog="Exit codes are sysexits: `riwoactl --help` lists them.",
    )
    environment = os.environ.get("RIWOA_CONFIG")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(environment) if environment else None,
        help="a TOML file; watched and reloaded (default: $RIWOA_CONFIG)",
    )
    parser.add_argument("--state", metavar="DIR", help=f"the state directory (default: {ORDER})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, run.seed=1")
    parser.add_argument("--new-run", action="store_true", help="start another run in the same journal")
    parser.add_argument(
        "--nightly",
        metavar="FROM-UNTIL",
        help="search within these hours alone, 21:00-07:00: go on with the unfinished run or begin another, and have "
        "the best answer exported by their end; outside of them, do nothing",
    )
    parser.add_argument("--foreground", action="store_true", help="show progress; attach where a daemon is alive")
    parser.add_argument("--version", action="version", version=f"riwoad {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
