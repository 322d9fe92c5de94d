"""One generation of a run: ask, propose, evaluate, tell, commit."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from structlog.contextvars import bind_contextvars

from riwoa.errors import OracleError
from riwoa.patience import patiently
from riwoa.run.candidate import Candidate
from riwoa.run.choice_time import ChoiceTime
from riwoa.run.evaluations import EvaluationOutcome, EvaluationRequest, EvaluationRound, Evaluations
from riwoa.run.existing import Existing
from riwoa.run.history import History, Identity
from riwoa.run.journal import RunJournal
from riwoa.run.ledger import Commit, Ledger, evaluated
from riwoa.run.phases import Phase
from riwoa.run.proposals import Asking, TrainingFailure
from riwoa.run.replies import JoinedReplies
from riwoa.run.task import SearchTask
from riwoa.run.under_way import Arrivals, UnderWay
from riwoa.search.fitness import FloatArray
from riwoa.search.racing import NO_RACE, Race
from riwoa_storage.events import Event, TrainingFailed
from riwoa_storage.failpoint import failpoint

BARREN_GENERATIONS = 10  # in a row without one success: the oracle is broken
FIRST_FAILURES = 20  # or so many candidates in a row, while nothing has succeeded yet


class GenerationRunner:
    """Runs generations of a phase, whichever that is.

    Args:
        journal: of the run.
        task: what is searched.
        evaluations: where accuracies come from.
        history: what was committed.
        existing: what exists in the space.
        ledger: commits.
        under_way: what is asked asynchronously.

    Attributes:
        barren: generations in a row, up to the last, in which everything failed.
        choice_time: what it takes to choose what is asked.
    """

    def __init__(
        self,
        journal: RunJournal,
        task: SearchTask,
        evaluations: Evaluations,
        history: History,
        existing: Existing,
        ledger: Ledger,
        under_way: UnderWay,
    ) -> None:
        self.barren = 0
        self.choice_time = ChoiceTime()
        self._under_way = under_way
        self._journal = journal
        self._task = task
        self._evaluations = evaluations
        self._history = history
        self._existing = existing
        self._ledger = ledger

    async def run(self, phase: Phase, started_s: float, cut: asyncio.Timeout, *, left: int | None, late: bool) -> None:
        """Run the phase's next generation and commit it.

        Args:
            phase: the one under way.
            started_s: monotonic clock.
            cut: may end it until its evaluations are there; what follows is the matter of a moment.
            left: evaluations that it may take; None for any number.
            late: whether the deadline has ended the search before it, which is to be journaled.

        Raises:
            OracleError: everything failed; nothing is committed.
        """
        driver, proposals = phase.driver, phase.proposals
        generation, objective = driver.strategy.generation, self._history.objective
        bind_contextvars(generation=generation)
        failure = await proposals.boundary(generation)
        shares = driver.strategy.shares
        arrivals, joined = await (self._arrived if phase.asynchronous else self._whole)(phase, left)
        cut.reschedule(None)
        failpoint("conductor.evaluated")
        candidates, outcomes = arrivals.candidates, arrivals.outcomes
        self._require_life(phase, candidates, outcomes)
        predictions = driver.predictions([c.genotype for c in candidates])
        rows = zip(candidates, outcomes, predictions, strict=True)
        individuals = [self._ledger.individual(*row) for row in rows]
        driver.tell([evaluated(i, objective) for i in individuals])
        self._history.absorb(generation, individuals)
        inputs, events = self._inputs(generation, failure, late=late)
        verdicts = await proposals.judge(generation, individuals, joined, self._ledger.won)
        state = driver.strategy.snapshot() | (self._under_way.snapshot() if phase.asynchronous else {})
        inputs |= arrivals.inputs
        commit = Commit(generation, phase.name, individuals, joined, inputs, state, shares, started_s)
        timed = self.choice_time.due(self._journal.run_id, generation)
        await self._ledger.commit(commit, verdicts, [*events, *timed])
        await proposals.committed(generation, individuals, joined, verdicts)
        self._existing.committed(individuals, objective)

    async def _whole(self, phase: Phase, left: int | None) -> tuple[Arrivals, JoinedReplies]:
        """Ask a generation and wait for all of it."""
        free = None if left is None else max(1, left - phase.proposals.reserved(phase.driver.strategy.generation))
        async with self._evaluations.round(race := phase.driver.race()) as work:
            candidates, joined = await self._ask(phase, work, race, free)
        return Arrivals(candidates, work.outcomes([c.key for c in candidates]), {}), joined

    async def _arrived(self, phase: Phase, left: int | None) -> tuple[Arrivals, JoinedReplies]:
        """Ask what there is room for beside what is under way, and wait for the first of all."""
        generation, under_way = phase.driver.strategy.generation, self._under_way
        least = 0 if under_way else 1
        free = None if left is None else max(least, left - phase.proposals.reserved(generation))
        await self._begin(under_way.work, NO_RACE, under_way.take_left())
        candidates, joined = await self._ask(phase, under_way.work, NO_RACE, free, under_way.genotypes)
        under_way.add(generation, candidates)
        arrivals = await under_way.arrive()
        await self._recall(c.parent for c in arrivals.candidates)  # some were asked long ago
        return arrivals, joined

    async def _ask(
        self,
        phase: Phase,
        work: EvaluationRound,
        race: Race,
        free: int | None,
        under_way: Sequence[FloatArray] = (),
    ) -> tuple[list[Candidate], JoinedReplies]:
        """The candidates of a generation, at most ``free``, all of them begun; and the replies that join it."""
        driver, proposals = phase.driver, phase.proposals
        generation = driver.strategy.generation
        suggested = await proposals.suggestions(generation)
        begun_s = time.monotonic()
        asked = await asyncio.to_thread(driver.ask, free, under_way, suggested)  # may draw and screen many children
        self.choice_time.took(time.monotonic() - begun_s, [p.operator for p in asked])
        await self._recall(p.parent for p in asked)
        target_ms = self._task.prompt_target_ms(self._history.objective.latency_target_ms)
        for_replies = None if free is None else free - len(asked)
        asking = Asking(generation, asked, target_ms, for_replies, driver.strategy.elites)
        return await proposals.candidates(asking, partial(self._begin, work, race))

    async def _begin(self, work: EvaluationRound, race: Race, candidates: Iterable[Candidate]) -> None:
        new = list(candidates)
        await self._recall(c.parent for c in new)
        await work.add([self._wanted(race, c) for c in new])

    def _inputs(
        self, generation: int, failure: TrainingFailure | None, *, late: bool
    ) -> tuple[dict[str, Any], list[Event]]:
        """What the clock decided of a generation, and the events to store with it."""
        inputs: dict[str, Any] = {"deadline": "search"} if late else {}
        if failure is None:
            return inputs, []
        event = TrainingFailed(
            run_id=self._journal.run_id, generation=generation, reason=failure.reason, duration_s=failure.duration_s
        )
        return inputs | {"training_failed": failure.reason}, [event]

    async def _recall(self, parents: Iterable[Identity | None]) -> None:
        """Have the metrics of a generation's parents at hand: one query for those that are not held."""
        unheld = self._history.unheld(parents)

        def look() -> None:
            with self._journal.reader() as reader:
                self._history.recall(reader, self._journal.run_id, unheld)

        if unheld:
            await patiently(look)

    def _wanted(self, race: Race, c: Candidate) -> EvaluationRequest:
        """What to evaluate, and what it must reach: its parent counts too, its operator is judged by it."""
        if race.threshold is None:
            return EvaluationRequest(c.key, c.architecture)
        objective = self._history.objective
        load = self._task.known_load(objective)(c.architecture) if objective.is_known else None
        needed = race.needed(load, self._history.fitness(c.parent))
        return EvaluationRequest(c.key, c.architecture, needed)

    def _require_life(
        self, phase: Phase, candidates: Sequence[Candidate], outcomes: Sequence[EvaluationOutcome]
    ) -> None:
        """Stop, committing nothing, when it is the oracle that fails and not the candidates.

        A candidate may fail for ever, and a polish often asks one at a time, so a barren generation is journaled like
        any other; but not one after the other, and fewer of them while nothing has succeeded.
        """
        generation, many = phase.driver.strategy.generation, BARREN_GENERATIONS * phase.commits_a_generation
        failed = [(c.architecture, e.error) for c, e in zip(candidates, outcomes, strict=True)]
        self.barren = self.barren + 1 if self._existing.barren(failed) else 0
        first = math.ceil(FIRST_FAILURES / len(candidates))
        if self.barren >= (first if self._history.best is None else many):
            raise OracleError(
                f"every evaluation of generation {generation} failed, first: {outcomes[0].error}; mend it and start "
                "again, nothing is lost"
            )
