"""What a resumed conductor asks the journal, each in as little of it as will do."""

from __future__ import annotations

import itertools

from riwoa.run.racing import Racing
from riwoa.search.race import MOST
from riwoa.surrogate.screening import NEWEST
from riwoa_storage.reader import PAGE_ROWS, JournalReader
from riwoa_storage.records import IndividualRecord

PACE_GENERATIONS = 10  # whose durations tell the pace


def newest(reader: JournalReader, run_id: int, racing: Racing) -> list[IndividualRecord]:
    """The newest individuals that were evaluated in full, as many as what is learned of the space is learned from."""
    limit, rows = NEWEST, reader.newest_fresh(run_id, NEWEST)
    while racing.rungs and len(rows) == limit and sum(racing.learns_from(i.metrics) for i in rows) < MOST:
        limit *= 4  # few went through every rung
        rows = reader.newest_fresh(run_id, limit)
    return rows


def recent_s(reader: JournalReader, run_id: int, generation: int, phase: str) -> list[float]:
    """What the last generations of a phase took, up to this one."""
    start = max(0, generation + 1 - PACE_GENERATIONS)
    return [s.duration_s for s in reader.generation_summaries(run_id, start) if s.phase == phase]


def searched(reader: JournalReader, run_id: int, generation: int) -> int:
    """What had been evaluated when the search ended and the polish began, by a generation of the polish."""
    end = generation
    while end > 0:
        start = max(0, end - PAGE_ROWS)
        page = itertools.islice(reader.generation_summaries(run_id, start), end - start)
        of_search = [s for s in page if s.phase == "search"]
        if of_search:
            return int(of_search[-1].counters["evaluations"])
        end = start
    return 0
