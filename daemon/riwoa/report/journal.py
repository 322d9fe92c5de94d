"""What a report reads of a journal: columns of all individuals, and few whole records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.report.landscape import Sample, known_indices, same_space, spread_evenly
from riwoa.run.limits import journaled_objective
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.space import IntArray, SpaceError
from riwoa_storage.history import Place
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationSummary, IndividualRecord, RunRecord

MOST_SAMPLED = 3_000
_UNIFORM = ("init", "random")


@dataclass(frozen=True, slots=True)
class Columns:
    """Every individual that was evaluated in full, ascending; arrays of one length.

    Attributes:
        generations: of each.
        slots: of each.
        values: larger is better.
        latencies_ms: 0 where none is known.
        uniform: whether it was drawn before the search chose anything.
        candidates: how many the search proposed, in whatever they ended.
        repeats: of these, whose answer was known.
        dropped: of these, given up on a cheaper evaluation.
    """

    generations: IntArray
    slots: IntArray
    values: FloatArray
    latencies_ms: FloatArray
    uniform: npt.NDArray[np.bool_]
    candidates: int
    repeats: int
    dropped: int

    def places(self, numbers: Iterable[int]) -> list[Place]:
        """Where these stand."""
        return [(int(self.generations[i]), int(self.slots[i])) for i in numbers]


def read_summaries(reader: JournalReader, run: RunRecord) -> list[GenerationSummary]:
    """Every committed generation, without its individuals."""
    return list(reader.generation_summaries(run.run_id))


def read_columns(reader: JournalReader, run: RunRecord, objective: Objective) -> Columns:
    """The columns of a run. Not checked, as a picture need not be; a run with a metric of its own is read whole."""
    rows: list[tuple[int, int, float, float, bool]] = []
    ends: Counter[tuple[str, bool]] = Counter()
    if objective.raised == "accuracy":
        for p in reader.history.points(run.run_id):
            ends[p.status, p.cache_hit] += 1
            if p.status == "ok" and p.accuracy is not None:
                value = -p.accuracy if objective.lowered else p.accuracy
                rows.append((p.generation, p.slot, value, p.latency_ms or 0.0, p.operator in _UNIFORM))
    else:
        for generation, i in reader.individuals(run.run_id):
            ends[i.status, i.cache_hit] += 1
            value = objective.value(i.metrics)
            if i.status == "ok" and math.isfinite(value):
                latency_ms = float(i.metrics.get("latency_ms") or 0.0)
                rows.append((generation, i.slot, value, latency_ms, i.operator in _UNIFORM))
    generations, slots, values, latencies, uniform = zip(*rows, strict=True) if rows else ((),) * 5
    return Columns(
        np.array(generations, dtype=np.int64),
        np.array(slots, dtype=np.int64),
        np.array(values, dtype=np.float64),
        np.array(latencies, dtype=np.float64),
        np.array(uniform, dtype=np.bool_),
        candidates=ends.total(),
        repeats=sum(count for (_, repeat), count in ends.items() if repeat),
        dropped=sum(count for (status, repeat), count in ends.items() if status == "dropped" and not repeat),
    )


def _records(reader: JournalReader, run: RunRecord, places: list[Place]) -> list[tuple[int, IndividualRecord]]:
    return [(found.generation, found.record) for found in reader.history.individuals_at(run.run_id, places)]


def read_sample(reader: JournalReader, run: RunRecord, columns: Columns, limit_ms: float | None) -> Sample | None:
    """Evaluated networks with their genes, spread evenly over the run; None where its space cannot be read."""
    space = same_space(run.provenance.get("space"))
    numbers = spread_evenly(len(columns.values), MOST_SAMPLED)
    if space is None or not numbers:
        return None
    found = _records(reader, run, columns.places(numbers))
    try:
        indices = known_indices(space, [record.architecture for _, record in found])
    except SpaceError:
        return None
    return Sample(
        space=space,
        indices=indices,
        values=columns.values[numbers],
        latencies_ms=columns.latencies_ms[numbers],
        generations=columns.generations[numbers],
        uniform=columns.uniform[numbers],
        limit_ms=limit_ms,
    )


def objective_of(run: RunRecord, summaries: list[GenerationSummary]) -> Objective:
    """What a run looks for, with the target that it ended with."""
    leader = (summaries[-1].leader if summaries else None) or {}
    return journaled_objective(run.provenance, leader.get("target_ms"))
