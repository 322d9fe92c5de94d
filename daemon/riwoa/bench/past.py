"""A long past for a run that has just begun: generations as the daemon commits them, without the evaluating.

What they hold is drawn at random and never better than the leader, so the run goes on from where it stood. Everything
has the size that it has in a search: individuals with their metrics and parents, an evaluation each, the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.run.history import pack_state, unpack_state
from riwoa.search.codec import Codec
from riwoa.search.rng import generator
from riwoa.search.space import Space
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import EvaluationRecord, GenerationRecord, IndividualRecord, RunRecord
from riwoa_storage.writer import JournalWriter

POPULATION = 20


async def lengthen(
    journal: Path, generations: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Add generations to the unfinished run until it has so many; nobody else may be writing.

    Raises:
        StorageError: the journal cannot be written.
    """
    with JournalReader(journal) as reader:
        run = reader.latest_run()
        assert run is not None
        last = reader.last_generation(run.run_id)
        assert last is not None
        assert last.leader is not None
    drawn = _Drawn(run, last)
    writer = await JournalWriter.open(journal)
    try:
        for generation in range(last.generation + 1, generations):
            record = drawn.record(generation)
            await writer.put_evaluations([drawn.evaluation(i) for i in record.individuals])
            await writer.commit_generation(record)
            progress(generation, generations)
    finally:
        await writer.close()


class _Drawn:
    """Generations that follow a committed one.

    Args:
        run: the run.
        last: its last generation.
    """

    def __init__(self, run: RunRecord, last: GenerationRecord) -> None:
        assert last.leader is not None
        self._version = run.provenance["oracle_version"]
        self._space = Space.from_json(run.provenance["space"])
        self._codec = Codec(self._space, run.provenance["seed"])
        self._last = last
        self._state = unpack_state(last.state)
        self._metrics: dict[str, Any] = dict(last.leader["metrics"])

    def record(self, generation: int) -> GenerationRecord:
        """The generation of this number; of the others since the last, all must have been drawn before."""
        gone_by = generation - self._last.generation
        counters = dict(self._last.counters)
        counters["evaluations"] += POPULATION * gone_by
        return replace(
            self._last,
            generation=generation,
            state=pack_state({**self._state, "generation": np.array(generation + 1)}),
            counters=counters,
            inputs={"failed": {}, "rejected": {}},
            individuals=tuple(self._individuals(generation)),
            joined_requests=(),
            digest="",
            committed_unix_s=0.0,
        )

    def _individuals(self, generation: int) -> Iterator[IndividualRecord]:
        rng = generator(0, generation, "bench.past")
        genotypes = rng.random((POPULATION, self._codec.dimension))
        for slot, (genotype, indices) in enumerate(zip(genotypes, self._codec.decode(genotypes), strict=True)):
            cost, error = rng.random(2)
            changed = {  # slower networks tend to be more accurate
                "latency_ms": self._metrics["latency_ms"] * (0.5 + 0.4 * cost),
                "accuracy": self._metrics["accuracy"] * (0.5 + 0.4 * cost * (1.0 - 0.5 * error)),
            }
            yield IndividualRecord(
                slot=slot,
                operator="spiral",
                parent=(self._last.generation, 0)
                if generation == self._last.generation + 1
                else (generation - 1, slot),
                genotype=genotype.astype("<f8").tobytes(),
                architecture=self._space.architecture(indices),
                architecture_key=self._space.key(indices),
                status="ok",
                metrics={**self._metrics, **changed},
                fitness=changed["accuracy"],
                fitness_version=self._last.individuals[0].fitness_version,
                cache_hit=False,
            )

    def evaluation(self, i: IndividualRecord) -> EvaluationRecord:
        """What the oracle would have answered."""
        return EvaluationRecord(
            oracle_version=self._version,
            architecture_key=i.architecture_key,
            architecture=i.architecture,
            status="ok",
            metrics={name: value for name, value in i.metrics.items() if name != "latency_ms"},
            error=None,
            attempts=1,
            worker="pool",
            duration_s=0.1,
            created_unix_s=0.0,
        )
