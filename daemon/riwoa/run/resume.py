"""What a resumed conductor asks the journal, each in as little of it as will do, in a thread that can be given up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from riwoa.run.deadline import PACE_GENERATIONS
from riwoa.run.existing import Existing
from riwoa.run.history import History
from riwoa.run.scan import Progress, Scanned, scan
from riwoa.search.fitness import Objective
from riwoa.search.race import MOST
from riwoa.search.racing import Racing
from riwoa.surrogate.screening import Screening
from riwoa_storage.reader import PAGE_ROWS, JournalReader
from riwoa_storage.records import GenerationRecord, IndividualRecord

LEAST_READ = 400  # evaluations, for the bounds of races

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Past:
    """Where a run stood at its last commit.

    Attributes:
        last: its last committed generation.
        scanned: its individuals.
        newest: the last of which bounds and predictor learn; none where nothing does.
        recent_s: durations of the phase's last generations.
        searched: evaluations when the search ended, if it has.
        barren: generations in a row, up to the last, in which everything failed.
        idle: candidates of those, up to the last, in which nothing was new since something was configured.
    """

    last: GenerationRecord
    scanned: Scanned
    newest: Sequence[IndividualRecord]
    recent_s: Sequence[float]
    searched: int
    barren: int
    idle: int


@dataclass(frozen=True, slots=True)
class PastReader:
    """Reads the past of a run.

    Attributes:
        run_id: the run.
        racing: what learns of the newest individuals on its rungs.
        screening: the predictor that learns of them, too; None for none.
        existing: says which generations failed, or were idle.
        objective: in force.
        revision: of the configuration in force.
    """

    run_id: int
    racing: Racing
    screening: Screening | None
    existing: Existing
    objective: Objective
    revision: int

    def read(self, reader: JournalReader, progress: Progress) -> Past | None:
        """The past; None before the first commit."""
        last = reader.last_generation(self.run_id)
        if last is None:
            return None
        return Past(
            last=last,
            scanned=scan(reader, self.run_id, last.generation + 1, self.objective, progress),
            newest=self.newest(reader),
            recent_s=self._recent_s(reader, last),
            searched=self._searched(reader, last.generation) if last.phase == "polish" else 0,
            barren=self._barren(reader, last),
            idle=self._idle(reader, last),
        )

    def judge(self, reader: JournalReader, history: History, objective: Objective) -> list[IndividualRecord]:
        """Have a history choose its leader anew, by another objective; ``newest``."""
        scanned = scan(reader, self.run_id, history.generations, objective)
        history.judge_by(objective, reader, self.run_id, scanned)
        return self.newest(reader)

    def newest(self, reader: JournalReader) -> list[IndividualRecord]:
        """The newest individuals that bounds or predictor learn of, as many as they learn from."""
        racing, screening = self.racing, self.screening
        if not racing.rungs and screening is None:
            return []
        limit = LEAST_READ if screening is None else max(LEAST_READ, screening.newest)
        in_full = screening is None or not screening.of_failures
        rows = reader.newest_fresh(self.run_id, limit, in_full=in_full)

        def known() -> int:
            return sum(i.status == "ok" and racing.learns_from(i.metrics) for i in rows)

        while racing.rungs and len(rows) == limit and known() < MOST:
            limit *= 4  # few went through every rung
            rows = reader.newest_fresh(self.run_id, limit, in_full=in_full)
        return rows

    def _recent_s(self, reader: JournalReader, last: GenerationRecord) -> list[float]:
        """Durations of the last generations of a phase, up to this one."""
        start = max(0, last.generation + 1 - PACE_GENERATIONS)
        return [s.duration_s for s in reader.generation_summaries(self.run_id, start) if s.phase == last.phase]

    def _searched(self, reader: JournalReader, generation: int) -> int:
        """Evaluations when the search ended and the polish began, by a generation of the polish."""
        end = generation
        while end > 0:
            start = max(0, end - PAGE_ROWS)
            page = itertools.islice(reader.generation_summaries(self.run_id, start), end - start)
            of_search = [s for s in page if s.phase == "search"]
            if of_search:
                return int(of_search[-1].counters["evaluations"])
            end = start
        return 0

    def _barren(self, reader: JournalReader, last: GenerationRecord) -> int:
        of_last = itertools.takewhile(
            lambda g: self.existing.all_failed(g.individuals), self._newest_first(reader, last)
        )
        return sum(1 for _ in of_last)

    def _idle(self, reader: JournalReader, last: GenerationRecord) -> int:
        def is_idle(g: GenerationRecord) -> bool:
            return g.config_revision == self.revision and self.existing.is_idle(g.individuals, self.objective)

        return sum(len(g.individuals) for g in itertools.takewhile(is_idle, self._newest_first(reader, last)))

    def _newest_first(self, reader: JournalReader, last: GenerationRecord) -> Iterator[GenerationRecord]:
        """The generations up to the last, read as they are asked for."""
        yield last
        for generation in reversed(range(last.generation)):
            yield reader.generation(self.run_id, generation)


async def in_thread(work: Callable[[Progress], _T], progress: Progress) -> _T:
    """``work(progress)`` in a thread; cancelled, the thread ends at its next progress, for nobody waits for it."""
    given_up = False

    def told(done: int, total: int) -> None:
        if given_up:
            raise asyncio.CancelledError
        progress(done, total)

    try:
        return await asyncio.to_thread(work, told)
    except asyncio.CancelledError:
        given_up = True
        raise
