"""From architectures to outcomes: what is committed is free, what is stored is not repeated, the rest is evaluated.

Hit or miss is decided by committed generations alone (ruling 4): an evaluation that a killed daemon stored but never
committed is used again without a word, and counts as the evaluation that it was.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riwoa.log import get_logger
from riwoa.oracle.protocol import EvaluationBackend, EvaluationResult
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import EvaluationRecord
from riwoa_storage.writer import JournalWriter

_log = get_logger("evaluations")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Raw metrics of an architecture, or why there are none. ``hit``: known from a committed generation."""

    metrics: Mapping[str, Any]
    error: str | None
    hit: bool

    @property
    def ok(self) -> bool:
        """Whether there are metrics."""
        return self.error is None


Wanted = tuple[str, Mapping[str, Any]]  # key and architecture


class Round:
    """One generation's evaluations: each architecture is worked for once, whenever it is added."""

    def __init__(self, evaluations: Evaluations, group: asyncio.TaskGroup) -> None:
        self._evaluations = evaluations
        self._group = group
        self._fresh: dict[str, Evaluated] = {}
        self._tasks: dict[str, asyncio.Task[Evaluated]] = {}

    def add(self, wanted: Sequence[Wanted]) -> None:
        """Begin the evaluation of what is neither committed nor in this round already; does not wait."""
        new = {key: a for key, a in wanted if not self._evaluations.known(key) and key not in self._tasks}
        new = {key: a for key, a in new.items() if key not in self._fresh}
        self._fresh |= self._evaluations.stored(new)
        for key, architecture in new.items():
            if key not in self._fresh:
                work = self._evaluations.work(key, architecture)
                self._tasks[key] = self._group.create_task(work, name=f"evaluate {key}")

    def settle(self) -> None:
        """Take the results; all tasks are done."""
        self._fresh |= {key: task.result() for key, task in self._tasks.items()}

    def outcomes(self, keys: Sequence[str]) -> list[Evaluated]:
        """Outcomes by key, in order, once the round is over; the second of two equal keys is a hit of the first.

        So hits follow from the order of the keys and from committed generations, not from when they were added.
        """
        found, seen = [], set()
        for key in keys:
            known = self._evaluations.committed(key) or self._fresh[key]
            found.append(Evaluated(known.metrics, known.error, known.hit or key in seen))
            seen.add(key)
        return found


class Evaluations:
    """Evaluates a generation's architectures, storing each result as it arrives.

    Args:
        backend: where misses go.
        journal: where results are stored; failures are not, they are committed with their generation.
        journal_path: read for results that an earlier life stored and never committed.
        oracle_version: what the results hold for.
        on_result: called at each result that was worked for.
    """

    def __init__(
        self,
        backend: EvaluationBackend,
        journal: JournalWriter,
        journal_path: Path,
        oracle_version: str,
        on_result: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._journal = journal
        self._path = journal_path
        self.oracle_version = oracle_version
        self._on_result = on_result
        self._committed: dict[str, Evaluated] = {}
        self.outstanding = 0  # worked for at this moment, or waiting for it

    def commit(self, key: str, evaluated: Evaluated) -> None:
        """Know this outcome from now on: its generation is committed. The first one stays."""
        self._committed.setdefault(key, Evaluated(evaluated.metrics, evaluated.error, True))

    def committed(self, key: str) -> Evaluated | None:
        """The outcome of this architecture in a committed generation."""
        return self._committed.get(key)

    def known(self, key: str) -> bool:
        """Whether there is one."""
        return key in self._committed

    async def evaluate(self, wanted: Sequence[Wanted]) -> list[Evaluated]:
        """Outcomes of (key, architecture) pairs, in order; the second of two equal keys is a hit of the first.

        Cancelling it cancels what is under way.
        """
        async with self.round() as work:
            work.add(wanted)
        return work.outcomes([key for key, _ in wanted])

    @asynccontextmanager
    async def round(self) -> AsyncIterator[Round]:
        """Work of one generation, that may be added in parts; leaving the context waits for all of it."""
        async with asyncio.TaskGroup() as group:
            yield (work := Round(self, group))
        work.settle()

    def stored(self, new: Mapping[str, Any]) -> dict[str, Evaluated]:
        """Results that an earlier life stored and never committed; they count as the evaluations that they were."""
        found = {}
        with JournalReader(self._path) as reader:
            for key in new:
                record = reader.evaluation(self.oracle_version, key)
                if record is not None and record.status == "ok":
                    found[key] = Evaluated(record.metrics, None, False)
        return found

    async def work(self, key: str, architecture: Mapping[str, Any]) -> Evaluated:
        """Evaluate an architecture and store its result."""
        self.outstanding += 1
        try:
            result = await (await self._backend.submit(key, architecture))
        finally:
            self.outstanding -= 1
        error = (result.reason or result.status) if result.status != "ok" else _unusable(result.metrics)
        if error is None:
            await self._journal.put_evaluation(self._record(key, architecture, result))
        else:
            _log.warning("evaluation_failed", architecture=key, reason=error, attempts=result.attempts)
        self._on_result()
        return Evaluated(result.metrics if error is None else {}, error, False)

    def _record(self, key: str, architecture: Mapping[str, Any], result: EvaluationResult) -> EvaluationRecord:
        return EvaluationRecord(
            oracle_version=self.oracle_version,
            architecture_key=key,
            architecture=architecture,
            status="ok",
            metrics=result.metrics,
            error=None,
            attempts=result.attempts,
            worker="pool",
            duration_s=result.duration_s,
            created_unix_s=time.time(),
        )


def _unusable(metrics: Mapping[str, Any]) -> str | None:
    """Why metrics cannot be ranked: the accuracy is missing, not finite, or no fraction."""
    accuracy = metrics.get("accuracy")
    if not isinstance(accuracy, int | float) or not math.isfinite(accuracy) or not 0.0 <= accuracy <= 1.0:
        return f"the accuracy {accuracy!r} is not a fraction"
    return None
