"""One search: its workers, its language model, its conductor, and what attends to them, to the end of the run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from structlog.contextvars import bind_contextvars

from riwoa.cognition.adapters import AdapterFiles, journaled
from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.config.schema import Config
from riwoa.hardware.interval import interval_of
from riwoa.hardware.obtain import BuildProgress
from riwoa.hardware.process import ProgressCallback
from riwoa.log import get_logger
from riwoa.oracle.backend import check_pool, make_pool
from riwoa.oracle.kind import Problem
from riwoa.oracle.kinds import kind_named
from riwoa.oracle.protocol import Pool
from riwoa.oracle.workers import pool_settings
from riwoa.patience import BestEffort, patiently
from riwoa.run.conductor import Conductor, Hooks
from riwoa.run.credit import OperatorSeconds
from riwoa.run.deadline import training_cut_unix_s
from riwoa.run.evaluations import Evaluations, version_at
from riwoa.run.experience import Experience
from riwoa.run.journal import RunJournal
from riwoa.run.memory import Memory, memory_of
from riwoa.run.model_side import LanguageModel
from riwoa.run.problem import load_problem, search_task
from riwoa.run.provision import Provision, provide
from riwoa.run.strategy import screens
from riwoa.run.style import lag_of
from riwoa.run.task import SearchTask
from riwoa.service.cluster_events import ClusterEvents
from riwoa.service.drift_watch import DriftWatch
from riwoa.service.ending import (
    confirm_winner,
    export_winner,
    finetune_winner,
    judge_front,
    measured_winner,
    report_run,
)
from riwoa.service.experience_watch import ExperienceWatch
from riwoa.service.front_view import journaled_front, test_view, timed_view
from riwoa.service.leader_watch import LeaderWatch
from riwoa.service.logs import configure_log, log_model_line, log_worker_line
from riwoa.service.parts import DaemonParts
from riwoa.service.proof import JournalProof
from riwoa.service.run_record import (
    RunInputs,
    UnfinishedRun,
    begin_or_continue,
    find_unfinished,
    inheritance,
    model_directory,
    settle_new_run,
)
from riwoa.service.state import DaemonState
from riwoa.service.status import Rate
from riwoa.service.tasks import stop_task
from riwoa.service.trainings import Trainings
from riwoa.service.views import (
    cluster_view,
    cognition_view,
    config_view,
    evaluations_view,
    journaled_leader,
    leader_view,
    operators_view,
    proposals_view,
    run_targets_view,
    run_view,
    screening_view,
    workers_view,
)
from riwoa.surrogate.screening import prior_examples
from riwoa_storage.reader import JournalReader
from riwoa_storage.writer import JournalWriter

_log = get_logger("service")
_COUNT_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Search:
    """A conductor that stands where the journal ends, and all that it works with."""

    run_id: int
    inputs: RunInputs
    task: SearchTask
    pool: Pool
    proposal_queue: ProposalQueue | None
    evaluations: Evaluations
    conductor: Conductor

    @property
    def phase(self) -> str:
        """The conductor's: "search" or "polish"."""
        return self.conductor.phase

    def hold(self, held: bool) -> None:
        """Begin no other evaluation while held; those under way end."""
        self.pool.hold(held)
        if held:
            self.conductor.running.clear()
        else:
            self.conductor.running.set()


class Session:
    """Searches from where the journal stands; made anew for each attempt.

    Args:
        parts: what outlives it.
        journal: the writer.
        new_run: begin another run even where one is unfinished.
    """

    def __init__(self, parts: DaemonParts, journal: JournalWriter, *, new_run: bool) -> None:
        self.has_begun = False  # the run is in the journal, and restored
        self._parts = parts
        self._board = parts.board
        self._journal = journal
        self._new_run = new_run
        self._rate = Rate()
        self._proof = JournalProof(journal, parts.paths.journal)
        self._cluster_events = ClusterEvents(journal)
        self._shown_proof: DaemonState | None = None  # the last that was shown of the proof

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Search to the end of the run, confirm its winner and export it.

        Args:
            group: of the tasks that work beside the search; they end with it.

        Raises:
            RiwoaError, StorageError, OSError: why it cannot go on; what is committed stays.
        """
        # Beside the slow starts, but before anything is written: never build on a broken chain.
        checking = group.create_task(self._prove_at_start(), name="verify")
        unfinished = self._find_unfinished()
        problem = await self._load_problem()
        provision = await self._provide(unfinished)
        async with contextlib.AsyncExitStack() as stack:
            pool, version = await self._start_pool(stack, problem, provision, unfinished)
            await checking
            prior = prior_examples(self._parts.config.search.predictor, problem.space)
            memory = await self._remember(unfinished, problem, version)
            inputs = RunInputs(problem, version, provision, prior, memory)
            config = self._parts.config
            inherit = partial(inheritance, self._parts.paths.journal, config.cognition.role)
            run_id = await begin_or_continue(self._journal, unfinished, config, inputs, inherit)
            self._cluster_events.run_id = run_id
            bind_contextvars(run=run_id)  # in every line of the log from here on, and of the tasks begun from here
            search = await self._start_search(group, stack, inputs, pool, run_id)
            self._attend(group, stack, search)
            conductor = search.conductor
            await conductor.run()
            self._board.sources.time_left_s = lambda: None  # nobody knows how long the rest takes
        judged = await judge_front(self._parts, self._journal, problem.spec, conductor)
        winner = await measured_winner(self._parts, self._journal, problem, conductor)
        if not judged:
            await confirm_winner(self._parts, self._journal, run_id, problem.exact_spec, winner)
        await self._show_judged(run_id)
        await self._journal.finish_run(run_id)
        why = f"{conductor.endings.reason}: " if conductor.endings.reason else ""
        finished = f"{why}the run is finished; `riwoactl pareto` shows what it found, --new-run starts another"
        told = await export_winner(self._parts)
        told = await finetune_winner(self._parts, conductor.schedule.due_unix_s) or told
        await report_run(self._parts)
        self._board.show("finished", told or finished)

    # -- the start -----------------------------------------------------------------------------------------------------

    async def _prove_at_start(self) -> None:
        await self._proof.prove(self._show_proof, structure=True)
        if self._shown_proof is not None:
            self._board.withdraw(self._shown_proof)

    def _show_proof(self, done: int, total: int) -> None:
        """Show how far the proof is; called from a thread, beside the other slow starts."""
        self._parts.progress.note()
        message = f"verifying the journal: generation {done} of {total}"
        shown = self._board.change(lambda now: now.saying(message) if now.state == "starting" else now)
        if shown.state == "starting":
            self._shown_proof = shown

    def _find_unfinished(self) -> UnfinishedRun | None:
        parts = self._parts
        unfinished = None if self._new_run else find_unfinished(parts.paths.journal, parts.loaded, parts.reloader)
        if unfinished is None:
            settle_new_run(parts.loaded, parts.reloader)
        return unfinished

    async def _load_problem(self) -> Problem:
        """Load what is searched, which may train a supernet and measure this device; refuse an unattainable target."""
        check_pool(self._parts.config)
        self._board.show("measuring", str(BuildProgress(0, 0, None)))

        def tell(p: BuildProgress) -> None:
            self._parts.progress.note()
            self._board.sources.time_left_s = lambda: p.left_s
            self._board.show(p.work, str(p))

        await self._prepare(tell)
        problem = await load_problem(self._parts.config, self._parts.paths.latency_table, tell)
        self._board.sources.time_left_s = lambda: None
        self._board.sources.warnings = lambda: list(problem.warnings)
        for warning in problem.warnings:
            _log.warning("search_doubtful", reason=warning)
        problem.check_target(self._parts.loaded.config)
        self._parts.reloader.check = problem.check_target
        return problem

    async def _prepare(self, tell: ProgressCallback) -> None:
        """Have the oracle's kind make what is missing, as a supernet that is to be trained."""
        parts, kind = self._parts, kind_named(self._parts.config.oracle.kind)
        trainings = Trainings(parts.pauses, training_cut_unix_s(parts.config.run, time.time()))
        with kind.blamed("prepare its problem"):
            await kind.value.prepare(parts.config, parts.paths.latency_table, trainings.run, tell)

    async def _provide(self, unfinished: UnfinishedRun | None) -> Provision:
        """Decide who writes proposals in this run, and show it from now on."""
        run = unfinished.run if unfinished is not None else None
        journal = self._parts.paths.journal
        directory = model_directory(journal, run)
        provision = await provide(lambda: self._parts.config.cognition, run, log_model_line, directory, journal)
        self._board.sources.cognition = lambda: cognition_view(provision)
        if provision.missed:
            _log.warning("no_language_model", state=provision.state, reason=provision.reason)
        return provision

    async def _remember(self, unfinished: UnfinishedRun | None, problem: Problem, version: str) -> Memory | None:
        """What the run knows of earlier runs, as it did when it began; shown."""
        run = unfinished.run if unfinished is not None else None
        config, journal = self._parts.config, self._parts.paths.journal
        if run is None and not (config.search.memory and screens(config)):
            return None
        task = search_task(problem, config)

        def look() -> Memory | None:
            with JournalReader(journal) as reader:
                return memory_of(reader, run, task, task.objective(config), version)

        memory = await patiently(look)
        if memory is not None:
            told = {"left_out": list(memory.left_out)} if memory.left_out else {}
            _log.info("remembered", evaluations=memory.words, **told)
            self._board.show("starting", f"begins with {memory.words}")
        return memory

    async def _start_pool(
        self,
        stack: contextlib.AsyncExitStack,
        problem: Problem,
        provision: Provision,
        unfinished: UnfinishedRun | None,
    ) -> tuple[Pool, str]:
        """Start the workers; returns their pool and the oracle's version."""
        self._board.show("starting", "starting the workers")
        # Limits decide no result: an edit that mends them must not wait for a boundary that they keep from coming.
        newest = self._parts.reloader.newest.oracle
        limits = {"timeout_s": newest.timeout_s, "memory_bytes": newest.memory_bytes}
        oracle = self._parts.config.oracle.model_copy(update=limits)
        settings = pool_settings(oracle, kept_cores=provision.busy_cores)
        version = str(unfinished.run.provenance["oracle_version"]) if unfinished is not None else None
        told = self._cluster_events
        stack.push_async_callback(told.written)
        pool = make_pool(self._parts.config, problem.spec, settings, log_worker_line, told.tell, oracle_version=version)
        stack.push_async_callback(pool.close)
        info = await pool.start()
        self._board.sources.workers = lambda: workers_view(pool.stats())
        self._board.sources.cluster = lambda: cluster_view(pool.stats())
        return pool, info.version

    async def _start_search(
        self,
        group: asyncio.TaskGroup,
        stack: contextlib.AsyncExitStack,
        inputs: RunInputs,
        pool: Pool,
        run_id: int,
    ) -> _Search:
        """Restore a conductor from the journal; from here on what pauses the search holds it."""
        parts, problem = self._parts, inputs.problem
        proposal_queue = self._start_proposals(group, stack, inputs.provision)
        task = search_task(problem, parts.config, inputs.prior, inputs.memory)
        evaluations = Evaluations(
            pool,
            self._journal,
            parts.paths.journal,
            inputs.oracle_version,
            on_result=parts.progress.note,
            on_full=self._rate.tick,
            run_id=run_id,
            objective=task.objective(parts.config),
        )
        conductor = Conductor(
            journal=RunJournal(self._journal, parts.paths.journal, run_id),
            task=task,
            evaluations=evaluations,
            reloader=parts.reloader,
            model=LanguageModel(proposal_queue, inputs.provision.style) if proposal_queue is not None else None,
            hooks=Hooks(self._on_commit, lambda config: self._on_config(pool, config)),
        )
        await conductor.restore(self._show_restore)
        self.has_begun = True
        search = _Search(run_id, inputs, task, pool, proposal_queue, evaluations, conductor)
        stack.enter_context(parts.pauses.applied_to(search))
        return search

    def _start_proposals(
        self, group: asyncio.TaskGroup, stack: contextlib.AsyncExitStack, provision: Provision
    ) -> ProposalQueue | None:
        """Start the queue of work for the language model; None where nobody writes proposals."""
        parts = self._parts
        parts.heartbeat.training = lambda: False
        if provision.provider is None:
            return None
        proposal_queue = ProposalQueue(
            provision.provider,
            self._journal,
            lag=lag_of(parts.config.cognition),
            timeout_s=lambda: parts.config.cognition.timeout_s,
            train_timeout_s=lambda: parts.config.cognition.train_timeout_s,
            adapters=self._adapter_files() if provision.learns else None,
            trainer=provision.trainer,
            progress=parts.progress.note,
        )
        parts.heartbeat.training = lambda: proposal_queue.stats().is_training
        stack.push_async_callback(provision.provider.close)
        # It stops before the provider closes (callbacks run backwards), or work cut short would be journaled as failed.
        _start_beside(group, stack, proposal_queue.run(), "proposals")
        return proposal_queue

    def _adapter_files(self) -> AdapterFiles:
        paths = self._parts.paths
        return AdapterFiles(Path(paths.name("cache")) / "adapters", journaled(paths.journal))

    def _show_restore(self, done: int, total: int) -> None:
        """Show how far the journal is read; called from a thread."""
        self._parts.progress.note()
        message = f"reading the journal: generation {done} of {total}"
        self._board.change(lambda shown: shown.saying(message))

    # -- beside the search ---------------------------------------------------------------------------------------------

    def _attend(self, group: asyncio.TaskGroup, stack: contextlib.AsyncExitStack, search: _Search) -> None:
        """Show the search, and start what goes on beside it and ends before its workers do."""
        versions = [version_at(search.inputs.oracle_version, rung) for rung in (None, *search.conductor.racing.rungs)]
        seconds = OperatorSeconds(self._parts.paths.journal, search.run_id, versions)
        self._show(search, seconds)
        self._parts.pauses.apply()
        _start_beside(group, stack, _count_seconds(seconds, search.conductor), "seconds")
        _start_beside(group, stack, self._proof.keep_proving(), "verify")
        watched = LeaderWatch(
            self._parts.paths.journal, search.run_id, lambda: search.conductor.leader, search.conductor.objective.raised
        )
        self._board.sources.improvement = lambda: watched.found
        _start_beside(group, stack, watched.watch(), "leader")
        conductor = search.conductor
        journal = RunJournal(self._journal, self._parts.paths.journal, search.run_id)
        experience = Experience(journal, conductor.codec.space, conductor.config.run.seed, search.task)
        learned = ExperienceWatch(experience, conductor)
        self._board.sources.experience = lambda: learned.found
        _start_beside(group, stack, learned.watch(), "experience")
        if search.inputs.problem.measured is not None:
            watch = DriftWatch(
                search.inputs.problem.measured,
                search.run_id,
                self._journal,
                self._board,
                self._parts.pauses,
                workers=search.pool.stats,
                settings=lambda: self._parts.reloader.newest.latency,
            )
            _start_beside(group, stack, watch.watch(), "drift")

    def _show(self, search: _Search, seconds: OperatorSeconds) -> None:
        """Have the status object tell of this search."""
        conductor, problem = search.conductor, search.inputs.problem
        latency_interval = interval_of(self._parts.paths.latency_table, problem.latency_sha256)
        self._board.show("running")
        sources = self._board.sources
        memory = search.inputs.memory.words if search.inputs.memory is not None else None
        sources.run = lambda: run_view(conductor, memory)
        sources.evaluations = lambda: evaluations_view(conductor, search.evaluations, self._rate)
        sources.time_left_s = conductor.time_left_s
        sources.leader = lambda: leader_view(conductor, latency_interval)
        sources.targets = lambda: run_targets_view(conductor)
        sources.pareto = lambda: len(conductor.history.archive)
        sources.proposals = lambda: proposals_view(conductor, search.proposal_queue, seconds)
        sources.operators = lambda: operators_view(conductor, seconds)
        sources.screening = lambda: screening_view(conductor)
        sources.config = lambda: config_view(conductor, self._parts.reloader)

    async def _show_judged(self, run_id: int) -> None:
        """Have the status object tell what the test pictures and the clock said."""
        paths, sources = self._parts.paths, self._board.sources
        front = await patiently(lambda: journaled_front(paths.journal, run_id))
        test, timed = test_view(front), timed_view(front)
        sources.test = lambda: test
        sources.timed = lambda: timed
        if front.finalists is not None and front.finalists.leader is not None:
            interval = front.finalists.interval
            leader = journaled_leader(front.leader, front.run.provenance, interval, front.tries, front.reached)
            sources.leader = lambda: leader

    def _on_commit(self) -> None:
        self._parts.progress.note()
        self._parts.pauses.show()
        self._board.write()

    def _on_config(self, pool: Pool, config: Config) -> None:
        pool.set_limits(config.oracle.timeout_s, config.oracle.memory_bytes)
        configure_log(config, foreground=self._parts.foreground)


def _start_beside(
    group: asyncio.TaskGroup, stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, None], name: str
) -> None:
    """Start a task that is stopped when the stack unwinds."""
    stack.push_async_callback(stop_task, group.create_task(work, name=name))


async def _count_seconds(seconds: OperatorSeconds, conductor: Conductor) -> None:
    """Count operators' seconds slice by slice: nobody waits for what only the status shows."""
    counting = BestEffort("operator seconds")
    more = True
    while True:
        if not more:
            await asyncio.sleep(_COUNT_EVERY_S)
        more = False

        def count() -> None:
            nonlocal more
            more = seconds.count(conductor.history.generations)

        await asyncio.to_thread(counting.attempt, count)
