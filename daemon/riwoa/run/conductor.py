"""The generational loop: ask, propose, evaluate, tell, commit. Everything durable happens in the commit.

A generation is a function of the committed state, the configuration revision and the replies that join it. Killed
anywhere, the daemon restores the last committed state, asks the same candidates again and finds in the journal what had
already been evaluated or answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from riwoa.config.outcome import changes_words
from riwoa.config.reload import Reloader
from riwoa.config.schema import Config
from riwoa.errors import OracleError
from riwoa.log import get_logger
from riwoa.patience import patiently
from riwoa.run import resume
from riwoa.run.deadline import Schedule
from riwoa.run.endings import Endings
from riwoa.run.evaluations import Evaluations
from riwoa.run.existing import Existing
from riwoa.run.generation import GenerationRunner
from riwoa.run.history import Best, History, unpack_state
from riwoa.run.journal import RunJournal
from riwoa.run.ledger import Ledger, evaluated
from riwoa.run.lora_schedule import LoraSchedule
from riwoa.run.model_side import LanguageModel, proposals_of
from riwoa.run.phases import Effort, Phase, PolishPhase, SearchPhase, polish_budget
from riwoa.run.proposals import NoProposals
from riwoa.run.scan import Progress
from riwoa.run.strategy import (
    configured_strategy,
    racing_of,
    screening_of,
)
from riwoa.run.task import KeptLatencies, KeptTargetLoads, SearchTask
from riwoa.run.training_room import say_trainings, trainings_possible
from riwoa.run.under_way import UnderWay
from riwoa.search.base import LatencyOf
from riwoa.search.codec import Codec
from riwoa.search.driver import Driver
from riwoa.search.fitness import Objective
from riwoa.search.polish import Polish
from riwoa_storage.events import ConfigApplied
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord
from riwoa_storage.records import Phase as PhaseName

_log = get_logger("conductor")
_SLICE_S = 5.0  # of a pause


@dataclass(frozen=True, slots=True)
class Hooks:
    """Called after each commit, and with each configuration that comes into force."""

    on_commit: Callable[[], None] = lambda: None
    on_config: Callable[[Config], None] = lambda _: None


class Conductor:
    """Runs one run to its end.

    Args:
        journal: of the run, which is begun.
        task: what is searched.
        evaluations: where accuracies come from.
        reloader: the configuration in force.
        model: proposes beside the strategy; None for nobody.
        hooks: called as it goes on.
        now_unix_s: the wall clock, for the deadline alone.
    """

    def __init__(
        self,
        *,
        journal: RunJournal,
        task: SearchTask,
        evaluations: Evaluations,
        reloader: Reloader,
        model: LanguageModel | None = None,
        hooks: Hooks | None = None,
        now_unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._task = task
        self._evaluations = evaluations
        self._reloader = reloader
        self._hooks = hooks or Hooks()
        config = reloader.config
        self.run_id = journal.run_id
        self.codec = Codec(task.space, config.run.seed)
        self.history = History(task.objective(config))
        self.racing, self.screening = racing_of(config), screening_of(config, task)
        self.ledger = Ledger(journal, self.history, task, reloader, raced=bool(self.racing.rungs))
        self.schedule = Schedule(now_unix_s)
        self.proposals = proposals_of(
            model,
            journal,
            task,
            self.codec,
            history=self.history,
            known=evaluations.known,
            beliefs=self.screening,
            reloader=reloader,
        )
        self._targets = KeptTargetLoads(task, self.objective) if self.objective.targets else None
        alone = KeptLatencies(task.space, task.known_load(self.objective))
        self._latencies: LatencyOf = alone if self._targets is None else self._targets.least
        self.existing = Existing(task.catalogue, self.codec, evaluations, self._latencies)
        self.endings = Endings(journal, self.existing)
        self._under_way = UnderWay(self.codec, evaluations)
        self._generations = GenerationRunner(
            journal, task, evaluations, self.history, self.existing, self.ledger, self._under_way
        )
        if task.catalogue is not None and (self.objective.constraints or self.objective.targets):
            task.catalogue.judge_by(self._latencies)
        self._phase: Phase = self._search_phase()
        self.resumed_from: int | None = None
        self.running = asyncio.Event()
        self.running.set()  # cleared by a pause
        self._late = False  # the deadline has ended the search; to be journaled with the polish's first generation
        self._restored = False

    # -- for those who look on ---------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._reloader.config

    @property
    def objective(self) -> Objective:
        """The objective in force."""
        return self.history.objective

    @property
    def phase(self) -> PhaseName:
        """The phase under way."""
        return self._phase.name

    @property
    def generation(self) -> int:
        """The generation under way."""
        return self._phase.driver.strategy.generation

    @property
    def revision(self) -> int:
        """The configuration's revision."""
        return self.ledger.revision

    @property
    def leader(self) -> Best | None:
        """The best individual so far."""
        return self.history.best

    @property
    def learning(self) -> LoraSchedule | None:
        """The language model's trainings; None without one."""
        return self.proposals.learning

    @property
    def p_semantic(self) -> float:
        """Share of attacks that are semantic: none without a model; what pays, if the configuration says so."""
        return self.proposals.share(self.history.tallies)

    @property
    def choosing_s(self) -> Mapping[str, float]:
        """Seconds of choosing by operator that are not journaled yet."""
        return self._generations.choice_time.unjournaled

    @property
    def polish_spent(self) -> int:
        """Evaluations of the polish so far."""
        return self._phase.polish_spent(self.history.counters)

    @property
    def deadline_unix_s(self) -> float | None:
        """When the answer must be there, None if nobody asked."""
        return self.schedule.due_unix_s

    def time_left_s(self) -> float | None:
        """To the end of search and polish, see ``Schedule.time_left_s``."""
        return self.schedule.time_left_s(self._phase.work_s(self._effort()), self.config.run.deadline_margin_s)

    def cut_in_s(self) -> float | None:
        """Seconds until nothing more may be asked, not below 0; None without a deadline.

        A run that has no answer at all yet is not cut: its first generation is the answer, late as it may be.
        """
        left_s = self.schedule.left_s
        if left_s is None or self.leader is None:
            return None
        return max(0.0, left_s - self.config.run.deadline_margin_s)

    def _effort(self) -> Effort:
        idle, under_way = self.existing.idle, len(self._under_way)
        return Effort(self.config, self.history.counters, self.schedule.pace_s, idle, under_way)

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Resume where the journal ends, search, polish; a deadline, or a space that holds no more, may end it before.

        Raises:
            OracleError: everything fails; nothing of the generation under way is committed.
        """
        await self.restore()
        if self.phase == "search":
            say_trainings(trainings_possible(self.learning, self.config))
        async with self._under_way:
            while True:
                await self._let_run()
                if await self.endings.used_up(self.objective, self.history.counters, self.generation, self.phase):
                    return
                await self._move_on()
                if self._phase.finished and not self._late:
                    return
                if self._phase.finished or self.cut_in_s() == 0.0:
                    break
                self._phase.adapt(self.config, self.p_semantic)
                started_s, left = time.monotonic(), self._phase.left(self._effort())
                try:
                    async with asyncio.timeout(self.cut_in_s()) as cut:
                        await self._generations.run(self._phase, started_s, cut, left=left, late=self._late)
                except TimeoutError:
                    if not cut.expired():
                        raise
                    break  # dropped as by a kill: the generation under way is not committed
                self._late = False
                self.schedule.took(time.monotonic() - started_s)
                self._hooks.on_commit()
        await self.endings.late(self.schedule.wanted, self.generation, self.phase)

    async def _let_run(self) -> None:
        """At a boundary: take what was edited, and wait while paused, but not beyond the deadline.

        In slices, for a pause may be long: the deadline may be edited meanwhile, or the machine sleep.
        """
        while True:
            await self._apply_reload()
            if self.running.is_set() or self.cut_in_s() == 0.0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.running.wait(), min(_SLICE_S, self.cut_in_s() or _SLICE_S))

    async def _move_on(self) -> None:
        """Begin the polish, if the search is over or must end to leave it time."""
        effort = self._effort()
        if not self._phase.is_over(effort):
            self._late = self._phase.is_late(effort, self.cut_in_s())
            if not self._late:
                return
        if self.leader is None:
            raise OracleError("every evaluation of the search failed; mend it and start again with --new-run")
        if self._phase.has_converged(effort):
            await self.endings.converged(self.objective, self.generation)
        await self._phase.proposals.stop()
        await self._under_way.drop()
        self._phase = self._polish_phase(self.leader, self.generation, self.history.counters["evaluations"])
        self.schedule.generation_s = []
        if not self._phase.finished:  # a front, or a spent budget, has none
            _log.info("polish_begins", leader=self.leader.fitness, deadline=self._late)

    # -- configuration -----------------------------------------------------------------------------------------------

    async def _apply_reload(self) -> None:
        await self.ledger.put_refusal(self.generation)
        if (taken := self._reloader.take()) is None:
            return
        config, found = taken
        changed = {key: list(pair) for key, pair in found.live.items()}
        await self.ledger.put_config(config, changed, self.generation)
        await self._configure(config)
        event = ConfigApplied(run_id=self.run_id, generation=self.generation, changed=changed)
        await self._journal.writer.put_event(event)
        self.schedule.plan(config.run, await patiently(self._journal.config_revisions))
        _log.info("config_applied", revision=self.revision, changed=changes_words(found.live))

    async def _configure(self, config: Config) -> None:
        objective = self._task.objective(config)

        def judge() -> list[IndividualRecord]:
            with self._journal.reader() as reader:
                return self._past_reader().judge(reader, self.history, objective)

        newest = await patiently(judge) if objective != self.objective else None
        self.existing.idle = 0
        self._phase.configure(config, objective, self.p_semantic)
        if newest is not None:  # what a load costs that was not known beforehand is another now
            self._phase.driver.relearn(evaluated(i, objective) for i in newest)
        self._hooks.on_config(config)

    def _search_phase(self) -> SearchPhase:
        config, task = self.config, self._task
        strategy = configured_strategy(
            config, task.space, self.objective, self.p_semantic, self._latencies, self._targets
        )
        driver = Driver(
            strategy,
            guide=self.screening,
            racing=self.racing,
            catalogue=task.catalogue,
            archive=self.history.archive,
            known=self._latencies,
            start=task.start,
        )
        return SearchPhase(driver, self.proposals, config)

    def _polish_phase(self, best: Best, start_generation: int, searched: int) -> PolishPhase:
        seed, budget = self.config.run.seed, polish_budget(self.config, searched)
        leader = best.as_leader(self.codec, self.objective)
        others = [b.as_leader(self.codec, self.objective) for b in self.history.of_targets if b is not None]
        polish = Polish(
            self._task.space,
            self.objective,
            seed,
            leader,
            budget=budget,
            start_generation=start_generation,
            latency_of=self._latencies,
            pairs=self.screening is not None,
            loads_each=self._targets,
            others=[other for other in others if other.origin != leader.origin],
        )
        driver = Driver(polish, guide=self.screening, archive=self.history.archive, known=self._latencies)
        return PolishPhase(polish, driver, NoProposals(self.codec), searched)

    # -- resuming ----------------------------------------------------------------------------------------------------

    async def restore(self, progress: Progress = lambda done, total: None) -> None:
        """Stand where the last commit stood, once; what takes time is done in a thread, which tells its progress."""
        if self._restored:
            return
        await resume.in_thread(self._restore, progress)
        revisions = await patiently(self._journal.config_revisions)
        await self.proposals.resume(self.generation, revisions, searching=self.phase == "search")
        self._restored = True

    def _restore(self, progress: Progress) -> None:
        with self._journal.reader() as reader:
            revisions = reader.config_revisions(self.run_id)
            self.ledger.revision = len(revisions) - 1
            self.schedule.plan(self.config.run, revisions)
            self.history.digest = reader.digest_head(self.run_id)
            found = self._past_reader().read(reader, progress)
            if found is not None:
                self._stand_on(reader, found)
            self.endings.restore(reader, self.objective, self.phase)
            self.proposals.restore(reader, self.generation, searching=self.phase == "search")

    def _past_reader(self) -> resume.PastReader:
        return resume.PastReader(self.run_id, self.racing, self.screening, self.existing, self.objective, self.revision)

    def _stand_on(self, reader: JournalReader, past: resume.Past) -> None:
        last = past.last
        self.resumed_from = last.generation
        self.history.restore(reader, last, past.scanned)
        self.existing.restore(reader, past.scanned, past.idle)
        self._phase.driver.learn(evaluated(i, self.objective) for i in past.newest)
        self._generations.barren = past.barren
        self.schedule.generation_s = list(past.recent_s)
        if last.phase == "polish":
            assert self.leader is not None
            self._phase = self._polish_phase(self.leader, last.generation + 1, past.searched)  # its snapshot says where
        strategy, state = self._phase.driver.strategy, unpack_state(last.state)
        strategy.restore(state)
        self._under_way.restore(state)
        if last.phase == "polish" and "pairs" not in state:
            _log.warning("polish_goes_on_differently", reason="an older version began it; what it evaluated counts")
        # The objective may have changed after this state was committed and before the kill.
        strategy.set_objective(self.objective)
        _log.info("resumed", generation=last.generation + 1, phase=self.phase, digest=self.history.digest[:12])
